//! Help: every command explains itself and shows examples that the command line takes.

use support::binary::{ionledger, say};
use support::process::output;

/// Returns the names of the commands that `ionledger --help` lists.
fn commands() -> Vec<String> {
    let nowhere = tempfile::tempdir().unwrap();
    let help = say(nowhere.path(), "-h").stdout;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A command's line is set in by two blanks, the rest of a long sentence by more.
    let names = listed.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_explains_itself_with_examples() {
    let nowhere = tempfile::tempdir().unwrap();
    let commands = commands();
    assert!(commands.iter().any(|name| name == "rollback"), "{commands:?}");
    for command in commands {
        let help = say(nowhere.path(), &format!("{command} --help"));
        assert_eq!(help.code, 0, "{command}: {help:?}");
        assert!(help.stdout.contains("Usage: ionledger"), "{command}: {help:?}");
        if !["exit-codes", "proxy"].contains(&command.as_str()) {
            assert!(help.stdout.contains("Examples:\n  ionledger "), "{command} has no examples: {help:?}");
        }
    }
}

/// Each example is run where nothing runs: whatever it then says, it must not be that it cannot be understood. They are run side by
/// side, because some wait for brokers that are not there.
#[test]
fn every_example_is_a_command_line_that_is_understood() {
    let nowhere = tempfile::tempdir().unwrap();
    let mut examples = Vec::new();
    for command in commands() {
        let help = say(nowhere.path(), &format!("{command} --help")).stdout;
        let of_command = help.lines().skip_while(|line| *line != "Examples:").skip(1);
        let of_command = of_command.take_while(|line| line.starts_with("  ionledger "));
        // Those others do not end by themselves.
        let ends = |line: &&str| ![" up", " demo", " -w"].iter().any(|word| line.contains(word));
        examples.extend(of_command.filter(ends).map(str::to_owned));
    }
    assert!(examples.len() > 15, "only {} examples were found", examples.len());
    std::thread::scope(|scope| {
        let runs: Vec<_> = examples.iter().map(|example| scope.spawn(|| is_understood(example))).collect();
        runs.into_iter().for_each(|run| run.join().unwrap());
    });
}

fn is_understood(example: &str) {
    let nowhere = tempfile::tempdir().unwrap();
    let script = example.trim().replacen("ionledger", "\"$IONLEDGER\"", 1);
    let mut shell = std::process::Command::new("bash");
    shell
        .current_dir(nowhere.path())
        .env("IONLEDGER", ionledger().get_program())
        .env("IONLEDGER_DATA", nowhere.path().join("data"))
        .env("HOME", nowhere.path())
        .args(["-c", &script]);
    let output = output(&mut shell);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_ne!(output.status.code(), Some(2), "{example}: {stderr}");
    assert!(!stderr.contains("panicked"), "{example}: {stderr}");
}

#[test]
fn the_exit_codes_are_explained() {
    let nowhere = tempfile::tempdir().unwrap();
    let help = say(nowhere.path(), "help exit-codes");
    let table = say(nowhere.path(), "exit-codes").stdout;
    assert_eq!(help.code, 0);
    assert!(help.stdout.contains(&table), "{}", help.stdout);
    let codes: Vec<&str> = table.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(codes, ["0", "1", "2", "4", "5", "6", "8"]);
}

/// What scripts rely on stands in `docs/cli.md` as the binary says it.
#[test]
fn the_page_about_the_command_line_says_what_the_binary_says() {
    let page = include_str!("../../docs/cli.md");
    let nowhere = tempfile::tempdir().unwrap();
    assert!(page.contains(&say(nowhere.path(), "exit-codes").stdout), "other exit codes");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for command in commands() {
        assert!(page.contains(&format!("`{command}")), "{command} is not on the page");
        let help = words(&say(nowhere.path(), &format!("{command} --help")).stdout);
        if let Some((_, columns)) = help.split_once("Columns in a pipe: ") {
            let columns = columns.split('.').next().unwrap();
            assert!(page.contains(&format!("| {columns} |")), "{command} has other columns: {columns}");
        }
    }
    let help = words(&say(nowhere.path(), "-h").stdout);
    let changed = help.split_once("What a change gives in a pipe: ").unwrap().1.split('.').next().unwrap();
    assert!(page.contains(&format!("| {changed} |")), "changes have other columns: {changed}");
}

#[test]
fn completions_are_printed_for_every_shell() {
    let nowhere = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = say(nowhere.path(), &format!("completions {shell}"));
        assert_eq!(script.code, 0, "{shell}");
        assert!(script.stdout.contains("IONLEDGER_COMPLETE") && script.stderr.is_empty(), "{shell}");
    }
}

#[test]
fn a_shell_is_offered_what_is_for_people_and_nothing_else() {
    let nowhere = tempfile::tempdir().unwrap();
    let offered = |words: &[&str]| support::completion::completed(nowhere.path(), words);
    let commands = offered(&["ro"]);
    assert_eq!(commands, ["roll", "rollback"]);
    for hidden in ["node", "node-exec", "demo-s", "demo-service"] {
        assert_eq!(offered(&[hidden]), Vec::<String>::new(), "{hidden}");
    }
    assert!(offered(&["rollback", "api", "--no-b"]).iter().any(|option| option == "--no-break-glass"));
    assert_eq!(offered(&["rollback", ""]), Vec::<String>::new(), "nothing runs that knows a service");
}

#[test]
fn a_reader_who_goes_away_early_is_no_error() {
    let script = "\"$IONLEDGER\" completions zsh | head -1; exit ${PIPESTATUS[0]}";
    let mut shell = std::process::Command::new("bash");
    let output = output(shell.env("IONLEDGER", ionledger().get_program()).args(["-c", script]));
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}
