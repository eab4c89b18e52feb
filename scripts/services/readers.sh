# A Python environment with the independent readers of our tables, in target/services/readers.

readers_dir=$services_dir/readers
readers_requirements=$repo_root/tests/support/requirements.txt

readers_fetch() {
    with_lock readers readers_fetch_locked
}

readers_fetch_locked() {
    local stamp
    # The requirements' hash is written last, so a broken or outdated environment is built again.
    stamp=$(sha256sum <"$readers_requirements")
    if [ "$(cat "$readers_dir/stamp" 2>/dev/null)" = "$stamp" ]; then
        return 0
    fi
    say "making a Python environment with the readers"
    rm -rf "$readers_dir"
    make_environment "$readers_dir"
    retry 4 "$readers_dir/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: -r "$readers_requirements" ||
        die "pip could not install $readers_requirements"
    printf '%s\n' "$stamp" >"$readers_dir/stamp"
    say "readers are ready: $readers_dir/bin/python"
}

# Debian's python3 lacks ensurepip unless python3-venv is there; virtualenv brings its own pip.
make_environment() {
    local folder=$1 bootstrap=$services_dir/virtualenv.pip
    if python3 -m venv "$folder" >/dev/null 2>&1 && "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
        return 0
    fi
    say "python3 -m venv does not work here, trying virtualenv"
    rm -rf "$folder"
    if python3 -m virtualenv --version >/dev/null 2>&1; then
        python3 -m virtualenv --quiet "$folder"
        return
    fi
    python3 -m pip --version >/dev/null 2>&1 ||
        die "python3 has neither venv nor pip; install python3-venv (Debian) and run this again"
    retry 4 python3 -m pip install --quiet --target "$bootstrap" virtualenv || die "pip could not install virtualenv"
    PYTHONPATH=$bootstrap python3 -m virtualenv --quiet "$folder"
    rm -rf "$bootstrap"
}
