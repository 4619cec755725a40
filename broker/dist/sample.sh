#!/bin/sh
# Makes sample.ext4.gz, the image that `lazaret demo` carries. Needs e2fsprogs and gzip, no privilege.
# Everything that could differ from run to run is fixed: identifiers, times, owners.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
image=$work/sample.ext4
export E2FSPROGS_FAKE_TIME=1700000000 E2FSCK_TIME=1700000000 SOURCE_DATE_EPOCH=1700000000 TZ=UTC LC_ALL=C

mkdir -p "$tree/letters" "$tree/many"
printf 'A lazaret is the quarantine house of a port: what comes from outside is received,\nlooked at and served there, and gets no further.\n' >"$tree/README.txt"
seq -f 'line %g of five thousand' 5000 >"$tree/numbers.txt"
printf 'Dear harbour master,\n' >"$tree/letters/first.txt"
printf 'a name that would colour a terminal\n' >"$tree/letters/$(printf '\033[31mred')"
printf 'a name that would turn a line around\n' >"$tree/letters/$(printf 'invoice\342\200\256fdp.exe')"
ln -s ../README.txt "$tree/letters/link"
truncate -s 16M "$tree/sparse.bin"
printf 'end' | dd of="$tree/sparse.bin" bs=1 seek=16777213 conv=notrunc status=none
for number in $(seq -w 400); do : >"$tree/many/a-name-long-enough-to-fill-several-blocks-$number"; done
find "$tree" -exec touch -h -d @1700000000 {} +

mke2fs -q -F -t ext4 -b 1024 -N 1024 -L lazaret-demo -U 1a2a3e70-0000-4000-8000-000000000001 \
    -E hash_seed=1a2a3e70-0000-4000-8000-000000000002,root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0 \
    -d "$tree" "$image" 8M >/dev/null
# The times and owners that mke2fs took from this host, and the hash tree that it does not build.
(cd "$tree" && find . -mindepth 1) | sed 's/^\.//' | sort | while IFS= read -r name; do
    for field in 'ctime @1700000000' 'ctime_extra 0' 'atime @1700000000' 'atime_extra 0' 'mtime_extra 0' \
        'crtime @1700000000' 'crtime_extra 0' 'uid 0' 'gid 0'; do
        printf 'set_inode_field "%s" %s\n' "$name" "$field"
    done
done >"$work/fields"
debugfs -w -f "$work/fields" "$image" >/dev/null 2>&1
e2fsck -fyD "$image" >/dev/null 2>&1 || [ $? -eq 1 ]
e2fsck -fn "$image" >/dev/null 2>&1
gzip -9n <"$image" >"$here/sample.ext4.gz"
sha256sum "$tree/numbers.txt" "$here/sample.ext4.gz" | sed 's,  .*/,  ,'
