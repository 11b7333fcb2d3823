//! The messages: everything that errors, refusals and findings say to users stands in docs/messages.md, so that it can be read in
//! one go. `UPDATE_MESSAGES=1 cargo test --workspace --test messages` writes the file anew.

mod examples;
mod source;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use schemas::ErrorText;
use source::Message;

/// The rooms whose messages users read, in their order.
const ROOMS: [&str; 7] = ["schemas", "ledger", "replay", "proxy", "workers", "api", "cli"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// A message, and its hint below it.
fn entry(page: &mut String, message: &Message) {
    let told = match message.is_whole {
        true => ErrorText::of(&message.text),
        false => ErrorText { message: message.text.clone(), hint: None },
    };
    writeln!(page, "- {}", told.message).unwrap();
    if let Some(hint) = told.hint {
        writeln!(page, "  hint: {hint}").unwrap();
    }
}

fn page() -> String {
    let mut page = String::from(
        "# Messages\n\nWhat errors, refusals, warnings and `doctor` say to users, by the file that says it. A test writes this page: change the \
         message, then run `UPDATE_MESSAGES=1 cargo test --workspace --test messages`. In the command line the hint stands on a \
         line of its own, in the API's errors it is the key `hint`. `{...}` is filled in.\n\n## Examples\n\nThe ledger's \
         refusals and the client's errors, filled in.\n\n",
    );
    for (name, told) in examples::all() {
        let hint = told.hint.map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
        writeln!(page, "- **{name}** {}{hint}", told.message).unwrap();
    }
    writeln!(
        page,
        "\n## Codes\n\nThe `code` of an error of the API, its HTTP status, and what the command line ends with.\n"
    )
    .unwrap();
    for (code, name) in api::Code::ALL {
        writeln!(page, "- `{name}`: {}, {}", code.status().as_u16(), code.exit_code()).unwrap();
    }
    for room in ROOMS {
        for (file, messages) in source::messages(&root(), room) {
            writeln!(page, "\n## {file}\n").unwrap();
            messages.iter().for_each(|message| entry(&mut page, message));
        }
    }
    page
}

#[test]
fn every_message_to_users_is_listed() {
    let (path, page) = (root().join("docs/messages.md"), page());
    if std::env::var_os("UPDATE_MESSAGES").is_some_and(|value| value == "1") {
        std::fs::write(&path, &page).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let first = kept.lines().zip(page.lines()).find(|(kept, now)| kept != now);
    let next = "run `UPDATE_MESSAGES=1 cargo test --workspace --test messages` and read the difference";
    assert!(kept == page, "docs/messages.md is not what the code says; {next}; the first line: {first:?}");
}

#[test]
fn no_message_ends_with_a_full_stop() {
    let listed = ROOMS
        .iter()
        .flat_map(|room| source::messages(&root(), room))
        .flat_map(|(file, messages)| messages.into_iter().map(move |message| (file.clone(), message.text)));
    let wrong = |text: &str| text.ends_with('.') && !text.ends_with("...");
    let wrong: Vec<_> = listed.filter(|(_, text)| wrong(text)).collect();
    assert_eq!(wrong, []);
}
