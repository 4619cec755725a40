#!/bin/bash -eu
# Licensed under the Apache License, Version 2.0 <http://www.apache.org/licenses/LICENSE-2.0> or the MIT license, at your
# option.
exec "$SRC/lazaret/tests/fuzz/build.sh"
