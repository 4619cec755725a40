#!/bin/bash -eu
exec "$SRC/lazaret/tests/fuzz/build.sh"
