"""curve_plot.py: what a picture of a learning curve shows, and that it is one."""

from stages.labelling import curve_plot
from stages.labelling.power_law import Ends

SIZES = (10, 40, 80, 160)


def figures(images: int, defined: bool = True) -> dict[str, Ends | None]:
    value = 1 - images**-0.5
    return {"accuracy": Ends(value, value - 0.1, value + 0.05) if defined else None, "auroc": None}


MEASURED = [(n, figures(n, n > 10)) for n in SIZES[:3]]
LINE = [(n, figures(n)) for n in range(10, 161, 30)]
FORECAST = [(n, figures(n)) for n in SIZES[2:]]


def test_a_panel_has_what_is_defined_of_a_figure_with_a_forecast() -> None:
    (panel,) = curve_plot.panels(["accuracy", "auroc"], MEASURED, LINE, FORECAST)
    assert (panel.name, panel.images) == ("accuracy", 80)
    assert [n for n, _ in panel.measured] == [40, 80]
    assert [n for n, _ in panel.line] == [n for n, _ in LINE]
    assert panel.forecast == (160, FORECAST[-1][1]["accuracy"])
    assert panel.told == "0.921 (0.821-0.971)"


def test_a_picture_has_a_panel_for_each_and_may_have_none() -> None:
    shown = curve_plot.panels(["accuracy"], MEASURED, LINE, FORECAST)
    one, two, none = (curve_plot.draw("a head", some, "svg") for some in (shown, 2 * shown, []))
    assert [picture.count(b'id="axes_') for picture in (one, two)] == [1, 2]
    assert b"</svg>" in none
