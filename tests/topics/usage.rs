//! Wrong usage and wrong configuration: exit code 2, nothing on stdout, and a message that says what to do. No server.

use std::process::{Command, Output};

fn weir(folder: &std::path::Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    // A developer's own variables must not reach the program.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WEIR_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).args(arguments).output().expect("weir starts")
}

fn refused(folder: &std::path::Path, arguments: &[&str], said: &str) {
    let output = weir(folder, arguments);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(2), "weir {arguments:?}\n{stderr}");
    assert_eq!(stdout, "", "weir {arguments:?}");
    assert!(stderr.contains(said), "weir {arguments:?} should say `{said}`\n{stderr}");
}

const CONFIG: &str = "[source]\nname = \"shop\"\nurl = \"mysql://weir@127.0.0.1:1\"\ntables = [\"shop.*\"]\n\
                      [warehouse]\nurl = \"lake\"\n";

#[test]
fn wrong_arguments_are_refused_before_anything_is_read() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, said) in [
        (&[][..], "Usage"),
        (&["mend"], "unrecognized subcommand"),
        (&["run", "--fast"], "unexpected argument"),
        (&["read"], "--table"),
        (&["read", "--table", "orders"], "not database.table"),
        (&["reconcile", "--since", "yesterday"], "2h"),
        (&["reconcile", "--format", "pdf"], "possible values"),
        (&["status", "--format", "xml"], "possible values"),
        (&["completions", "ksh"], "possible values"),
        (&["--log-format", "xml", "status"], "possible values"),
    ] {
        refused(folder.path(), arguments, said);
    }
}

#[test]
fn every_command_explains_itself() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["init", "check", "run", "snapshot", "status", "reconcile", "read", "table", "binlog", "completions"]
    {
        let output = weir(folder.path(), &[command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("--config"), "{command}");
    }
}

#[test]
fn a_missing_configuration_names_the_file_and_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    refused(folder.path(), &["status"], "weir init");
    refused(folder.path(), &["--config", "other.toml", "run"], "other.toml");
    refused(folder.path(), &["run", "--config", "other.toml"], "other.toml");
}

#[test]
fn a_wrong_configuration_names_the_key_and_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weir.toml");
    for (addition, said) in [
        ("[apply]\ncommit_interval = 1\n", "weir.toml, line 8"),
        ("[transport]\nkind = \"kafka\"\nbrokers = \"nowhere\"\n", "transport.brokers"),
        ("[transport]\nkind = \"kafka\"\npartitions = 0\n", "transport.partitions"),
        ("[transport]\nkind = \"pigeon\"\n", "weir.toml, line 8"),
        ("[[table]]\nname = \"shop.a\"\nmode = \"append\"\ndeletes = \"soft\"\n", "table[0].deletes"),
    ] {
        std::fs::write(&file, format!("{CONFIG}{addition}")).unwrap();
        for command in [&["run"][..], &["status"], &["check"], &["reconcile"]] {
            refused(folder.path(), command, said);
        }
    }
}

#[test]
fn init_writes_a_configuration_that_is_accepted_and_keeps_one_that_is_there() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(weir(folder.path(), &["init"]).status.code(), Some(0));
    refused(folder.path(), &["init"], "--force");
    assert_eq!(weir(folder.path(), &["init", "--force"]).status.code(), Some(0));
    // A table that cannot be matched shows that the file was read and found right.
    refused(folder.path(), &["snapshot", "--table", "elsewhere.t"], "elsewhere.t");
}

#[test]
fn completions_go_to_stdout() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = weir(folder.path(), &["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&output.stdout).contains("reconcile"), "{shell}");
    }
}

#[test]
fn a_source_that_is_not_there_is_a_failure_and_not_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("weir.toml"), CONFIG).unwrap();
    let output = weir(folder.path(), &["run", "--until-caught-up"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("127.0.0.1:1"), "{stderr}");
}
