# Delta Kernel, the JVM's own reader of Delta tables, from Maven Central into target/services/delta-kernel, with the program of
# ours that prints rows (tests/support/jvm): libs/*.jar, classes/.

delta_kernel_dir=$services_dir/delta-kernel
# Of later versions Maven Central has poms that name what is not there.
delta_kernel_version=4.0.1
delta_kernel_program=$repo_root/tests/support/jvm/KernelRows.java

jvm_readers_fetch() {
    with_lock delta-kernel jvm_readers_fetch_locked
}

jvm_readers_fetch_locked() {
    local stamp building=$delta_kernel_dir.building
    # The folder appears by a rename at the very end, so its stamp means that it is complete.
    stamp="$delta_kernel_version $(sha256sum <"$delta_kernel_program")"
    if [ "$(cat "$delta_kernel_dir/stamp" 2>/dev/null)" = "$stamp" ]; then
        return 0
    fi
    command -v javac >/dev/null || die "Delta Kernel's reader is compiled with javac, and there is none on PATH (Debian: openjdk-17-jdk-headless)"
    say "fetching Delta Kernel $delta_kernel_version from Maven"
    rm -rf "$building"
    mkdir -p "$building/classes"
    maven_libraries "$building/libs" io.delta:delta-kernel-defaults:"$delta_kernel_version" org.slf4j:slf4j-nop:1.7.36 ||
        die "mvn could not fetch Delta Kernel"
    javac -d "$building/classes" -cp "$building/libs/*" "$delta_kernel_program" || die "$delta_kernel_program does not compile"
    printf '%s\n' "$stamp" >"$building/stamp"
    rm -rf "$delta_kernel_dir"
    mv "$building" "$delta_kernel_dir"
    say "Delta Kernel is ready: $delta_kernel_dir"
}
