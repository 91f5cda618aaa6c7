"""What `voxengine providers` costs with a hundred distributions installed, against a bare entry-point scan."""

from __future__ import annotations

import importlib.metadata
import sys
import tempfile
from pathlib import Path
from unittest import mock

from _measure import Row, child_cpu_s, main, paired

TITLE = "Discovery with a hundred more distributions"
ROUNDS = 9
N_DISTRIBUTIONS = 100

SCAN = "import importlib.metadata as m; list(m.entry_points(group='voxengine.providers'))"


def fake_distributions(folder: Path) -> None:
    """Write the metadata of distributions that offer entry points in other groups."""
    for number in range(N_DISTRIBUTIONS):
        info = folder / f"filler_{number}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: filler-{number}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            f"[console_scripts]\nfiller{number} = filler:main\n\n[some.plugins]\nf{number} = filler:Plugin\n"
        )


def n_scans() -> int:
    """Return how often a registry scans for two look-ups and two listings."""
    from voxengine.providers.registry import ProviderRegistry

    with mock.patch("importlib.metadata.entry_points", wraps=importlib.metadata.entry_points) as scan:
        registry = ProviderRegistry()
        for _ in range(2):
            registry.get("mock")
            registry.infos(load=True)
    return scan.call_count


def run() -> list[Row]:
    """Measure."""
    with tempfile.TemporaryDirectory() as name:
        fake_distributions(Path(name))
        env = {"PYTHONPATH": name}
        listing = ("-m", "voxengine", "providers", "--json")
        took, base, ratio = paired(
            lambda: child_cpu_s("", env=env, argv=listing), lambda: child_cpu_s(SCAN, env=env), ROUNDS
        )
    return [
        Row("scans for four look-ups", n_scans(), "", 1),
        Row(
            "`voxengine providers` / bare scan",
            ratio,
            "×",
            9.0,
            "whole processes, CPU; the classes of every provider of ours are loaded",
        ),
        Row("`voxengine providers`", took * 1000, "ms"),
        Row("bare scan", base * 1000, "ms"),
    ]


if __name__ == "__main__":
    sys.exit(main(TITLE, run))
