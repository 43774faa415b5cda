"""`python -m grafana` writes the dashboards anew."""

from grafana import DASHBOARDS, FOLDER, text

for name in DASHBOARDS:
    (FOLDER / f"{name}.json").write_text(text(name), encoding="utf-8")
