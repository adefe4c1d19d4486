"""The command line: what it prints, and one clean line with exit code 2 when something is wrong."""

import json
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from dtdfast import cli

try:
    VERSION = metadata.version("dtdfast")
except metadata.PackageNotFoundError:  # built in place, as CONTRIBUTING.md says
    VERSION = "0+uninstalled"


@pytest.fixture
def extras(monkeypatch):
    """What the package asks for, if it is not installed: pyproject.toml in the place of its metadata."""
    if VERSION == "0+uninstalled":
        text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
        listed = tomllib.loads(text)["project"]["optional-dependencies"]
        asked = [f'{package}; extra == "{extra}"' for extra, packages in listed.items() for package in packages]
        monkeypatch.setattr(metadata, "requires", lambda name: asked)


def test_version(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"dtdfast {VERSION}\n"


@pytest.mark.parametrize("command", ["demo", "explain", "browse", "report", "inspect", "plan", "doctor"])
def test_every_command_says_what_it_does(capsys, command):
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    _, told, *_ = capsys.readouterr().out.split("\n\n")
    assert told.endswith(".")


def test_the_package_is_the_command():
    command = [sys.executable, "-m", "dtdfast", "explain", "none.onnx", "none.png", "-o", "out.png"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dtdfast: ")


@pytest.mark.parametrize("arguments", [[], ["explain"], ["demo", "--fast"]])
def test_wrong_usage(capsys, arguments):
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert capsys.readouterr().err.startswith("usage: dtdfast")


def test_doctor(capsys, extras):
    assert cli.main(["doctor"]) == 0
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert rows["dtdfast"].strip() == VERSION
    assert rows["backend oracle"].strip().startswith("usable")
    assert {"backend cpu", "backend oracle", "extra io", "extra plot"} <= set(rows)
    assert "extra test" not in rows


def test_doctor_as_json(capsys, extras):
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["build"]["dtdfast"] == VERSION
    assert {b["name"]: b["usable"] for b in found["backends"]}["oracle"] is True
    assert {"extra": "io", "package": "safetensors", "version": metadata.version("safetensors")} in found["extras"]


def test_doctor_in_a_source_tree(capsys, monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert cli.main(["doctor"]) == 0
    assert "dtdfast runs from its source tree" in capsys.readouterr().out


def test_doctor_names_the_command_for_a_missing_extra(capsys, monkeypatch, extras):
    version = metadata.version

    def without_matplotlib(name):
        if name == "matplotlib":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", without_matplotlib)
    assert cli.main(["doctor"]) == 0
    assert "matplotlib is missing: pip install 'dtdfast[plot]'" in capsys.readouterr().out


def test_errors_are_one_line_without_a_traceback(tmp_path, capsys, monkeypatch):
    assert cli.main(["demo", "-o", str(tmp_path / "no such folder" / "demo.png")]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("dtdfast: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["demo"]) == 2
    assert "pip install 'dtdfast[demo]'" in capsys.readouterr().err


def test_the_installed_command_runs_without_importing_optional_packages():
    check = (
        "assert not {'matplotlib', 'safetensors', 'torch', 'onnx', 'PIL', 'zarr', 'h5py', 'dask', 'distributed'} & "
        "set(sys.modules)"
    )
    code = f"import sys, dtdfast.cli; {check}; sys.exit(dtdfast.cli.main(['doctor']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
