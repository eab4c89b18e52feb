//! What is packed with the program fits it. No server.

use std::process::{Command, Output};

use crate::support::root;

fn weir(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir")).args(arguments).output().expect("weir starts")
}

pub(super) fn said(arguments: &[&str]) -> String {
    let output = weir(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Words of `--help` that are subcommands.
pub(super) fn subcommands(of: &[&str]) -> Vec<String> {
    let help = said(&[of, &["--help"]].concat());
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let named = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    named.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

/// `--name` of every option that `--help` shows.
pub(super) fn options(help: &str) -> Vec<&str> {
    let words = help.lines().filter(|line| line.trim_start().starts_with('-')).flat_map(str::split_whitespace);
    words.filter(|word| word.starts_with("--")).map(|word| word.trim_end_matches([',', '.'])).collect()
}

#[test]
fn every_command_and_option_has_its_place_in_the_manual() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    said(&["man", folder.path().to_str().expect("a plain path")]);
    let page = |name: &str| {
        let page = std::fs::read_to_string(folder.path().join(format!("{name}.1")));
        page.unwrap_or_else(|error| panic!("{name}(1): {error}")).replace('\\', "")
    };
    assert!(page("weir").contains(env!("CARGO_PKG_VERSION")));
    let mut pages = 1;
    for command in subcommands(&[]) {
        let nested = subcommands(&[&command]);
        let invocations = nested.iter().map(|nested| vec![command.as_str(), nested.as_str()]);
        for invocation in invocations.chain([vec![command.as_str()]]) {
            let page = page(&format!("weir-{}", invocation.join("-")));
            let help = said(&[&invocation[..], &["--help"]].concat());
            for option in options(&help) {
                assert!(page.contains(option), "{invocation:?} takes {option}, and its page does not say so");
            }
            pages += 1;
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), pages);
    assert!(pages > 20, "{pages}");
}

#[test]
fn the_unit_and_the_image_start_what_there_is() {
    let packaging = root().join("packaging");
    let unit = std::fs::read_to_string(packaging.join("weir@.service")).expect("the unit");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/")).expect("it starts something");
    let words: Vec<&str> = start.split_whitespace().collect();
    assert_eq!(words[0], "weir");
    said(&[&words[1..], &["--help"]].concat());
    // systemd's own judgement, where it is there; the program is not, on a machine that only builds it.
    match Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(packaging.join("weir@.service")).output() {
        Ok(output) => {
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            let ours = |line: &&str| line.contains("weir@") && !line.contains("/usr/bin/weir is not executable");
            let wrong: Vec<&str> = told.lines().filter(ours).collect();
            assert!(wrong.is_empty(), "{told}");
        }
        Err(error) => println!("systemd does not look at the unit here: {error}"),
    }
    let image = std::fs::read_to_string(packaging.join("Dockerfile")).expect("the image");
    let list = |instruction: &str| -> Vec<String> {
        let line = image.lines().find_map(|line| line.strip_prefix(instruction)).expect("an instruction");
        serde_json::from_str(line).expect("a list of words")
    };
    let words = [list("ENTRYPOINT "), list("CMD ")].concat();
    assert_eq!(words[0], "/usr/bin/weir");
    let words: Vec<&str> = words[1..].iter().map(String::as_str).chain(["--help"]).collect();
    said(&words);
}
