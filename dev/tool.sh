# A program that tests need, built once from its Go module. Sourced by what has set `tool`, which is the name of a folder
# in tools/ and of the program, and of the script itself.
# shellcheck shell=bash disable=SC2154

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(realpath -m "${KSO_CACHE:-$(dirname "$here")/.cache}")
# Where dev/cluster keeps a Go that it had to fetch.
cache=$root/cluster
pinned=$here/tools/$tool

say() { printf 'dev/%s: %s\n' "$tool" "$*" >&2; }
die() { say "$@"; exit 1; }
# shellcheck source=dev/go.sh
source "$here/go.sh"

# version_of MODULE prints the version that the tool's go.mod names.
version_of() {
    local version
    version=$(sed -n "s,^[[:space:]]*$1 \(v[0-9.]*\).*,\1,p" "$pinned/go.mod")
    [[ -n $version ]] || die "$pinned/go.mod names no version of $1"
    printf '%s' "$version"
}

# build_once PACKAGE FLAG... sets program, which it builds with these flags of
# `go build` unless it is there.
build_once() {
    mkdir -p "$cache" "$root/$tool" || die "cannot create $root/$tool; set KSO_CACHE to a folder that can be written"
    isolate_go
    find_go
    local key
    key=$({ echo "$go_version $*"; cat "$pinned/go.mod" "$pinned/go.sum"; } | sha256sum)
    program=$root/$tool/${key:0:16}/$tool
    [[ -x $program ]] || build "$@"
}

build() (
    package=$1
    shift
    exec 9>"$root/$tool/build.lock"
    flock -n 9 || { say "waiting for another build"; flock 9; }
    [[ ! -x $program ]] || exit 0
    say "building it from its Go modules: once, 2 or 3 minutes on 2 cores"
    mkdir -p "${program%/*}"
    log=${program%/*}/build.log
    cd "$pinned"
    if ! "$go" build -mod=readonly -buildvcs=false -trimpath "$@" -o "$program.new" "$package" >"$log" 2>&1 </dev/null; then
        tail -n 30 "$log" >&2
        die "the build failed; all of its output is in $log"
    fi
    mv "$program.new" "$program"
)
