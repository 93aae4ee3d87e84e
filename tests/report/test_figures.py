import matplotlib.image
import numpy as np

from recon_jax import spectral as closed_forms
from recon_jax.report import figures, spectral


def test_no_two_lines_look_alike():
    styles = {tuple(sorted(figures.line_style(i).items())) for i in range(28)}
    assert len(styles) == 28


def test_figures_of_the_closed_forms_are_drawn(tmp_path):
    rng = np.random.default_rng(0)
    strips = {"images": rng.random((3, 4, 4, 1)), "top": rng.random((3, 4, 4, 1))}
    curve = np.linspace(0.1, 1, 16)
    made = {
        "spectrum": spectral.spectrum_figure(curve, 0.75, strips),
        "alignment": spectral.alignment_figure({"none": curve}, {"none": curve * 0}),
        "impact": spectral.impact_figure(rng.normal(size=(2, 3, 2)), (0, 0.5, 0.9), (1, 2), (4, 8)),
    }
    for name, figure in made.items():
        for axis in figure.axes:
            assert axis.get_xlabel() or axis.get_ylabel() or not axis.has_data()
        path = figures.save_figure(tmp_path, name, figure)
        pixels = matplotlib.image.imread(path)
        assert pixels.shape[1] > 600
        assert pixels[..., :3].std() > 0.01  # not a blank page
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_constant_images_have_a_strip(tmp_path):
    _, axes = figures.new_figure(2, 1)
    figures.plot_image_strip(axes[0, 0], np.ones((2, 3, 3, 3)), "flat")
    shown = axes[0, 0].images[0].get_array()
    assert np.isfinite(shown).all()


def test_the_same_numbers_make_the_same_files(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        figure, axes = figures.new_figure(2, 2)
        figures.plot_curves(axes[0, 0], {"x": np.arange(1, 5)}, xlabel="K", ylabel="y")
        figures.save_figure(tmp_path / folder, "f", figure)
    for name in ("f.png", "f.pdf"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_image_parts_add_up_and_split_the_variance(image_like):
    images, labels = image_like(80, (4, 4, 1), 3, seed=4)
    moments = closed_forms.stream_moments([(images, labels)], 3)
    spectrum = closed_forms.eigendecompose(moments)
    parts = spectral.image_parts(images, spectrum, 0.75)
    assert list(parts) == ["images", "top 75%", "bottom 25%"]
    whole, top, bottom = parts.values()
    np.testing.assert_allclose(top + bottom - images.mean(0, keepdims=True), whole, atol=1e-9)
    share = top.var(0).sum() / images.var(0).sum()
    explained = np.asarray(closed_forms.explained_variance(spectrum))
    np.testing.assert_allclose(share, explained[explained < 0.75].max(), rtol=1e-9)
    np.testing.assert_allclose(share + bottom.var(0).sum() / images.var(0).sum(), 1, rtol=1e-9)
