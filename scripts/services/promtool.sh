# Gets promtool, which loads and tries alert rules as Prometheus does, into target/services/promtool.

promtool_dir=$services_dir/promtool
promtool_suite=bookworm

promtool_fetch() {
    with_lock promtool promtool_fetch_locked
}

promtool_fetch_locked() {
    # The folder appears by a rename at the very end, so its presence means it is complete.
    if [ -x "$promtool_dir/bin/promtool" ]; then
        return 0
    fi
    local building=$services_dir/promtool.building found
    rm -rf "$building"
    mkdir -p "$building/bin"
    found=$(command -v promtool || true)
    if [ -n "$found" ]; then
        say "taking promtool from PATH: $found"
        write_wrapper "$building/bin/promtool" "'$found'" ''
    elif is_debian; then
        say "fetching promtool from Debian $promtool_suite, some 25 MB"
        unpack_debian "$building" "$promtool_suite" prometheus
        # The server and its pages are not needed.
        rm -rf "$building/usr/bin/prometheus" "$building/usr/share"
        write_debian_wrapper "$building/bin/promtool" usr/bin/promtool ''
    else
        # Alert rules are still parsed and their metrics looked up without it, so this is no reason to stop.
        say "no promtool: this is not Debian and PATH has none; alert rules are not tried out"
        rm -rf "$building"
        return 0
    fi
    rm -rf "$promtool_dir"
    mv "$building" "$promtool_dir"
    say "promtool is ready"
}
