#!/usr/bin/env python3
"""Holds a read transaction of an LMDB environment open until its input ends, as a stuck tool would.

old_reader.py DIRECTORY"""

import ctypes
import sys

RDONLY = 0x20000

lmdb = ctypes.CDLL("liblmdb.so.0")
env, txn = ctypes.c_void_p(), ctypes.c_void_p()
for status in (lmdb.mdb_env_create(ctypes.byref(env)),
               lmdb.mdb_env_open(env, sys.argv[1].encode(), RDONLY, 0o600),
               lmdb.mdb_txn_begin(env, None, RDONLY, ctypes.byref(txn))):
    if status != 0:
        sys.exit(f"LMDB: {status}")
print("holding", flush=True)
sys.stdin.read()
