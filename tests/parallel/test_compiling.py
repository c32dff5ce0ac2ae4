"""Where compiled kernels are kept, and what is said where there can be none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.core.errors import GroundupError
from groundup.core.runtime import Layout, Runtime
from groundup.parallel import compiling
from groundup.parallel.compiling import CACHE_VARIABLE, can_compile, set_kernel_cache


@pytest.fixture(autouse=True)
def _no_choice_yet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "")  # so that it is put back
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_kernels_are_kept_under_the_users_cache_folder(tmp_path: Path) -> None:
    folder = set_kernel_cache()
    assert folder is not None
    assert folder.parent == tmp_path / "groundup" / "kernels"
    assert folder.is_dir()
    assert os.environ[CACHE_VARIABLE] == str(folder)
    assert set_kernel_cache() == folder


def test_every_kind_of_processor_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    here = set_kernel_cache()
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setattr(compiling, "cpu_name", lambda: "another processor")
    assert set_kernel_cache() != here


def test_the_users_own_choice_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "/elsewhere")
    assert set_kernel_cache() == Path("/elsewhere")
    assert not (tmp_path / "groundup").exists()


def test_what_importing_torch_dynamo_sets_is_not_the_users_choice(tmp_path: Path) -> None:
    code = (
        "import os, torch, torch._dynamo, torch._inductor.codecache\n"
        "from torch._inductor.runtime.cache_dir_utils import cache_dir\n"
        "cache_dir()\n"
        "from groundup.parallel.compiling import set_kernel_cache\n"
        "print(set_kernel_cache(), os.environ['TORCHINDUCTOR_CACHE_DIR'], cache_dir())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (folder,) = set(done.stdout.split())
    assert Path(folder).parent == tmp_path / "groundup" / "kernels"


def test_a_folder_whose_files_cannot_be_executed_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    noexec = os.statvfs_result((*os.statvfs("/")[:8], os.ST_NOEXEC, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: noexec)
    assert set_kernel_cache() is None
    assert CACHE_VARIABLE not in os.environ


def test_where_there_is_no_room_the_default_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert set_kernel_cache() is None
    assert CACHE_VARIABLE not in os.environ


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(compiling.shutil, "which", lambda _: None)
    able, why = can_compile(Runtime(), cuda=False)
    assert not able
    assert "eager, since there is no C++ compiler" in why
    with pytest.raises(GroundupError, match=r"no C\+\+ compiler"):
        can_compile(Runtime(compile="on"), cuda=False)


def test_the_site_may_forbid_it() -> None:
    assert can_compile(Runtime(compile="off"), cuda=False) == (False, 'eager, since runtime.compile = "off"')


def test_a_zero_bubble_pipeline_trains_without() -> None:
    halves = Layout(pipeline=2, schedule="zero_bubble")
    able, why = can_compile(Runtime(layout=halves), cuda=False)
    assert not able
    assert "zero-bubble" in why
    with pytest.raises(GroundupError, match='schedule = "interleaved"'):
        can_compile(Runtime(layout=halves, compile="on"), cuda=False)
    assert can_compile(Runtime(layout=Layout(pipeline=2)), cuda=False) == can_compile(Runtime(), cuda=False)
