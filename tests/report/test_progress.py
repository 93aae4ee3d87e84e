from recon_jax.report import progress


def test_items_pass_through_and_lines_show_percent(capsys):
    assert list(progress(range(3), "work", every=0.0)) == [0, 1, 2]
    shown = capsys.readouterr().err
    assert "work: 100%" in shown
    assert "3/3" in shown


def test_a_generator_needs_a_total(capsys):
    assert list(progress(iter("ab"), "work", 4)) == ["a", "b"]
    assert "50%" in capsys.readouterr().err
