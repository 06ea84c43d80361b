"""Units of systemd: what they say, that systemd takes them, and whom they refuse."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from farcall.cli.boot import unit_text
from farcall.cli.endpoint import main
from farcall.endpoint.pidfile import PidFile


def invoke(base: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--config-dir", str(base), *arguments], env={"FARCALL_SERVICE_URL": ""})


@pytest.fixture
def units(tmp_path: Path) -> Path:
    path = tmp_path / "units"
    path.mkdir()
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "endpoints"
    assert invoke(path, "configure", "mycluster-endpoint-mu", "--multi-user").exit_code == 0
    return path


def verify(path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("systemd-analyze is missing; scripts/ci-services.sh installs it")
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run([program, "verify", str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_is_the_decks_with_our_names(base: Path, units: Path) -> None:
    result = invoke(base, "enable-on-boot", "mycluster-endpoint-mu", "--unit-dir", str(units))
    path = units / "farcall-endpoint-mycluster-endpoint-mu.service"
    assert result.output == (
        f"Systemd service installed at {path}. Run\n"
        "    sudo systemctl enable farcall-endpoint-mycluster-endpoint-mu --now\n"
        "to enable the service and start the endpoint.\n"
    )
    assert result.exit_code == 0
    lines = path.read_text().splitlines()
    started = next(each for each in lines if each.startswith("ExecStart="))
    assert started.endswith(f"/farcall-endpoint --config-dir {base} start mycluster-endpoint-mu")
    assert started.startswith("ExecStart=/")
    for expected in (
        'Description=Farcall Endpoint "mycluster-endpoint-mu"',
        "After=network.target",
        "StartLimitIntervalSec=0",
        f"User={base.owner()}",
        "Type=simple",
        "Restart=always",
        "RestartSec=1",
        "KillMode=mixed",
        "OOMPolicy=continue",  # or one user's task that takes too much memory would end everybody's
        "WantedBy=multi-user.target",
    ):
        assert expected in lines
    assert path.stat().st_mode & 0o777 == 0o644
    verify(path)


def test_systemd_takes_paths_with_anything_in_them(tmp_path: Path) -> None:
    program = tmp_path / "a b%h ;ü" / "farcall endpoint"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = tmp_path / "farcall-endpoint-x.service"
    arguments = ["--config-dir", "/a b%h/$HOME/${HOME}\\", "start", "x"]
    path.write_text(unit_text("x", [str(program), *arguments], user="root", environment={"A": 'b c%d "e" $f'}))
    verify(path)
    assert '"/a b%%h/$$HOME/$${HOME}\\\\"' in path.read_text()
    program.unlink()
    with pytest.raises((AssertionError, pytest.skip.Exception)):  # so it was that file which it looked for
        verify(path)


@pytest.mark.parametrize("path", ["/bin/x\nUser=root", '/bin/"x"', "/bin/'x'", "/bin/$x", "/bin/x\\y"])
def test_programs_that_systemd_would_not_start_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="systemd"):
        unit_text("x", [path], user="me")


def test_what_runs_or_is_there_is_refused(base: Path, units: Path) -> None:
    enable = ("enable-on-boot", "mycluster-endpoint-mu", "--unit-dir", str(units))
    with PidFile(base / "mycluster-endpoint-mu" / "daemon.pid"):
        result = invoke(base, *enable)
        assert result.exit_code == 69
        assert "is running" in result.output
    assert list(units.iterdir()) == []
    assert invoke(base, *enable).exit_code == 0
    assert invoke(base, *enable).exit_code == 73
    disable = ("disable-on-boot", "mycluster-endpoint-mu", "--unit-dir", str(units))
    (units / "multi-user.target.wants").mkdir()
    link = units / "multi-user.target.wants" / "farcall-endpoint-mycluster-endpoint-mu.service"
    link.symlink_to("../" + link.name)
    assert invoke(base, *disable).exit_code == 0
    assert [each.name for each in units.rglob("*")] == ["multi-user.target.wants"]
    assert invoke(base, *disable).exit_code == 69
    assert invoke(base, "enable-on-boot", "nobody", "--unit-dir", str(units)).exit_code == 78


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_others_than_root_are_told_what_to_run(base: Path, units: Path) -> None:
    units.chmod(0o500)
    result = invoke(base, "enable-on-boot", "mycluster-endpoint-mu", "--unit-dir", str(units))
    assert result.exit_code == 77
    assert "sudo" in result.output
