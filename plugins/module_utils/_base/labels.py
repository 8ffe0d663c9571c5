# Copyright (c) 2026, baremetal.noiommu contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""SELinux: what is written gets the label that the policy has for its path, as restorecon would give it.

By itself a new file gets its directory's type. That is wrong for a program in a directory of data, and a unit with it
may do less, or more, than meant.
"""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache

_SELINUX = "/sys/fs/selinux/enforce"  # only there while the kernel enforces or logs a policy
_ATTRIBUTE = "security.selinux"
_FILES = 0  # SELABEL_CTX_FILE


def apply(target: int | str, path: str, kind: int) -> None:
    """Label an open file, or what has this name, for the real path where it is or will be; ``kind`` as S_IFREG.

    Nothing is done without SELinux, or where the policy has no label for the path.
    """
    if not os.path.exists(_SELINUX):
        return
    # Links in the directory's path are not known to the policy: it is the same file.
    wanted = _wanted(os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)), kind)
    is_name = isinstance(target, str)
    try:
        # Set only where it differs: the boot unit's domain need not be allowed to relabel what it inherits rightly.
        if wanted is not None and os.getxattr(target, _ATTRIBUTE, follow_symlinks=not is_name) != wanted:
            os.setxattr(target, _ATTRIBUTE, wanted, follow_symlinks=not is_name)
    except OSError:
        pass  # a filesystem without labels; or the policy forbids it, which is in the audit log


def _wanted(path: str, kind: int) -> bytes | None:
    library, handle = _policy()
    found = ctypes.c_char_p()
    if not handle or library.selabel_lookup_raw(handle, ctypes.byref(found), os.fsencode(path), kind) != 0:
        return None
    label = (found.value or b"") + b"\0"  # as the kernel keeps it
    library.freecon(found)
    return label


@lru_cache(maxsize=None)
def _policy() -> tuple[ctypes.CDLL, int | None]:
    """Return libselinux, and its handle of the policy's paths if there is a policy."""
    try:
        library = ctypes.CDLL("libselinux.so.1")
    except OSError:
        return ctypes.CDLL(None), None
    library.selabel_open.restype = ctypes.c_void_p
    library.selabel_lookup_raw.argtypes = [
        ctypes.c_void_p,
        ctypes.POINTER(ctypes.c_char_p),
        ctypes.c_char_p,
        ctypes.c_int,
    ]
    library.freecon.argtypes = [ctypes.c_char_p]
    return library, library.selabel_open(_FILES, None, 0)
