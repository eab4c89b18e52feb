# Gets a Chromium without a window into target/services/chromium: what looks at the service's page.

chromium_dir=$services_dir/chromium
# The release whose security updates bring new versions of it.
chromium_suite=bookworm

chromium_fetch() {
    with_lock chromium chromium_fetch_locked
}

chromium_fetch_locked() {
    # The folder appears by a rename at the very end, so its presence means it is complete.
    if [ -x "$chromium_dir/bin/chromium" ]; then
        return 0
    fi
    local building=$services_dir/chromium.building
    rm -rf "$building"
    mkdir -p "$building/bin"
    if [ "${WEIR_USE_PATH_CHROMIUM:-0}" != 1 ] && is_debian; then
        say "fetching Chromium from Debian $chromium_suite, some 170 MB"
        # Fonts, since without any a page has no text.
        unpack_debian "$building" "$chromium_suite" chromium-headless-shell fonts-dejavu-core
        chromium_fonts "$building"
        # It starts itself again for each of its processes, which a program started by a loader cannot. So the machine's own
        # loader finds the libraries, but for those that have to be the loader's.
        find "$building" \( -name 'ld-linux*' -o -name 'libc.so.6' -o -name 'libm.so.6' -o -name 'libdl.so.2' -o -name 'libpthread.so.0' \
            -o -name 'librt.so.1' -o -name 'libresolv.so.2' -o -name 'libanl.so.1' -o -name 'libutil.so.1' \) -delete
        write_wrapper "$building/bin/chromium" \
            'env LD_LIBRARY_PATH="$(printf %s: "$folder"/{usr/lib,lib}/*-linux-gnu "$folder"/usr/lib/*-linux-gnu/pulseaudio)" FONTCONFIG_FILE="$folder/fonts.conf" "$folder/usr/lib/chromium/chromium-headless-shell"' ''
    else
        chromium_from_path "$building"
    fi
    rm -rf "$chromium_dir"
    mv "$building" "$chromium_dir"
    say "Chromium is ready"
}

chromium_fonts() {
    cat >"$1/fonts.conf" <<'FONTS'
<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir prefix="relative">usr/share/fonts</dir>
  <cachedir prefix="xdg">weir-fontconfig</cachedir>
</fontconfig>
FONTS
}

chromium_from_path() {
    local name found=
    for name in chromium-headless-shell chromium chromium-browser google-chrome; do
        found=$(command -v "$name" || true)
        [ -z "$found" ] || break
    done
    [ -n "$found" ] || die "no Chromium: this is not Debian (or WEIR_USE_PATH_CHROMIUM=1 is set) and PATH has none."
    say "taking Chromium from PATH: $found"
    write_wrapper "$1/bin/chromium" "'$found' --headless" ''
}
