//! docs/quickstart.md, step for step: every block of it is run as it stands, in one shell, against a real MySQL, and prints what the
//! page says. What cannot be as it stands is marked there, and said here.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::mysql::Mysql;
use crate::support::{root, services_folder};

/// A step of the page.
struct Step {
    /// What the user types.
    commands: String,
    /// Why the test does it in its own way, if it does.
    replaced: Option<String>,
    /// What the page says is printed.
    prints: Option<String>,
}

/// Lines up to the end of a fenced block.
fn block<'a>(lines: &mut impl Iterator<Item = &'a str>) -> String {
    lines.take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect()
}

fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = page.lines();
    let mut remark = None;
    while let Some(line) = lines.next() {
        match line.strip_prefix("```") {
            Some("sh") => steps.push(Step { commands: block(&mut lines), replaced: None, prints: None }),
            Some("sh skip") => {
                let why: &str =
                    remark.take().expect("what is not run as it stands has a remark above it that says why");
                steps.push(Step { commands: block(&mut lines), replaced: Some(why.to_owned()), prints: None });
            }
            Some("text") => steps.last_mut().expect("a step before it").prints = Some(block(&mut lines)),
            Some(other) => panic!("a block of `{other}` is neither run nor compared"),
            None => remark = line.strip_prefix("<!-- ").map(|rest| rest.trim_end_matches(" -->")),
        }
    }
    steps
}

/// Stands in the output before what each step prints.
const MARK: &str = "@@ step";

/// The steps as one script. A service that is left behind by a step that fails ends with it.
fn script(steps: &[Step], port: &str) -> String {
    let mut script = "set -e\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n".to_owned();
    for (number, step) in steps.iter().enumerate() {
        script += &format!("echo '{MARK} {number}'\n");
        match &step.replaced {
            Some(why) => println!("step {number} is not run as it stands: {why}"),
            None => script += &step.commands.replace("3306", port),
        }
    }
    script
}

fn run(script: &str, folder: &Path) -> Output {
    let file = folder.join("quickstart.sh");
    std::fs::write(&file, script).expect("the script can be written");
    let mut command = Command::new("timeout");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WEIR_")) {
        command.env_remove(name);
    }
    let programs = Path::new(env!("CARGO_BIN_EXE_weir")).parent().expect("a folder").to_owned();
    let services = services_folder();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [programs, services.join("mysql/bin"), services.join("readers/bin")];
    let path = std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&path))).expect("plain paths");
    // The port of the page may be somebody else's.
    command.env("PATH", path).env("WEIR_HTTP__LISTEN", "127.0.0.1:0");
    command.current_dir(folder).args(["180", "bash"]).arg(file).output().expect("bash starts")
}

/// Whether `line` has the parts of `wanted`, which `…` divides, in their order.
fn is_like(line: &str, wanted: &str) -> bool {
    let parts: Vec<&str> = wanted.split('…').collect();
    let (first, last) = (parts[0], parts[parts.len() - 1]);
    let mut rest = line;
    let in_order = parts.iter().all(|part| rest.find(part).map(|at| rest = &rest[at + part.len()..]).is_some());
    in_order && line.starts_with(first) && line.ends_with(last)
}

/// Whether `printed` is what the page says: all of it, or, where the page leaves something out by `…`, with such lines in it.
fn is_as_told(printed: &str, told: &str) -> bool {
    if !told.contains('…') {
        return printed.trim_end() == told.trim_end();
    }
    let mut printed = printed.lines();
    told.lines().all(|wanted| printed.any(|line| is_like(line, wanted)))
}

#[test]
fn every_step_of_the_quickstart_does_what_it_says() {
    let mysql = Mysql::start(&[]);
    let port = mysql.url.rsplit(':').next().expect("a port").trim_end_matches('/');
    println!("3306 stands for {port}, and [http] listen for any free port");
    let page = std::fs::read_to_string(root().join("docs/quickstart.md")).expect("the page");
    let steps = steps(&page);
    let folder = tempfile::Builder::new().prefix("weir-test-").tempdir().expect("a temporary folder");
    let output = run(&script(&steps, port), folder.path());
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let printed: Vec<&str> =
        stdout.split(MARK).skip(1).map(|of_step| of_step.split_once('\n').map_or("", |(_, printed)| printed)).collect();
    assert!(output.status.success(), "step {} failed\n{stdout}\n{stderr}", printed.len().saturating_sub(1));
    assert_eq!(printed.len(), steps.len());
    for (number, (step, printed)) in steps.iter().zip(printed).enumerate() {
        let Some(told) = &step.prints else { continue };
        assert!(
            is_as_told(printed, told),
            "step {number}\n{}the page says\n{told}and it printed\n{printed}",
            step.commands
        );
    }
    let run_as_told = steps.iter().filter(|step| step.replaced.is_none()).count();
    assert!(run_as_told > 8 && steps.iter().filter(|step| step.prints.is_some()).count() > 6);
}

#[test]
fn what_is_left_out_stands_for_anything_and_nothing_else_does() {
    assert!(is_as_told("a\nb\n", "a\nb"));
    assert!(!is_as_told("a\nb\nc\n", "a\nb"));
    assert!(is_as_told("x\na 12 b\ny\nc\n", "a …b\nc…"));
    assert!(!is_as_told("c\na 1 b\n", "a …b\nc…"));
    assert!(!is_as_told("an a 1 b\n", "a …b"));
}
