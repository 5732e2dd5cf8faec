"""A real Chromium without a window, and without a network beyond this machine."""

import shutil
import subprocess

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell")


def chromium(profile):
    """A function of (address, *flags) → (stdout, stderr); the test is skipped where there is no Chromium.

    profile: a folder for it.
    """
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no Chromium on the PATH (looked for {', '.join(NAMES)}; Debian: apt-get install chromium)")

    def browse(address, *flags):
        command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        command += ["--disable-dev-shm-usage", "--disable-background-networking", f"--user-data-dir={profile}"]
        command += ["--enable-logging=stderr", "--v=0", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
        done = subprocess.run([*command, *flags, address], capture_output=True, text=True, timeout=90, check=True)
        return done.stdout, done.stderr

    return browse
