//! Programs: what a file must begin with so that the kernel runs it, found out before a version is recorded with it for good.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// How much of a script's first line the kernel reads. Source: Linux, `BINPRM_BUF_SIZE`.
const HEAD_BYTES: u64 = 256;

/// A file that the kernel runs, if what it needs is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A binary.
    Elf,
    /// A script.
    Script {
        /// The program that reads it.
        interpreter: PathBuf,
        /// The program that `/usr/bin/env` looks for, if that is the interpreter.
        looked_for: Option<String>,
    },
}

/// Why a file cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum NoProgram {
    /// It has no bytes.
    #[error("it is empty; name the program itself")]
    Empty,
    /// It is no program of a kind that is known here.
    #[error("it begins neither like an ELF binary nor with `#!`; name the program itself, not an archive or a source")]
    Unknown,
    /// It was written on Windows.
    #[error(
        "its first line, `#!{0}`, ends in a carriage return, which the kernel takes for part of the interpreter's name; convert its line ends (`sed -i 's/\\r$//' FILE`)"
    )]
    CarriageReturn(String),
    /// Nothing stands after `#!`.
    #[error("its first line names no interpreter after `#!`; write one, as `#!/bin/sh`")]
    NoInterpreter,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
}

impl Program {
    /// Reads the beginning of the file at `path`, which must be a regular one.
    ///
    /// # Errors
    ///
    /// [`NoProgram`] if the kernel would not run it.
    pub fn read(path: &Path) -> Result<Self, NoProgram> {
        let mut head = vec![];
        File::open(path)?.take(HEAD_BYTES).read_to_end(&mut head)?;
        Self::of(&head)
    }

    /// Reads the beginning of a file.
    ///
    /// # Errors
    ///
    /// [`NoProgram`] if the kernel would not run it.
    pub fn of(head: &[u8]) -> Result<Self, NoProgram> {
        if head.is_empty() {
            return Err(NoProgram::Empty);
        }
        if head.starts_with(b"\x7fELF") {
            return Ok(Program::Elf);
        }
        let line = head.strip_prefix(b"#!").ok_or(NoProgram::Unknown)?;
        let line = String::from_utf8_lossy(line.split(|byte| *byte == b'\n').next().unwrap_or_default());
        if let Some(line) = line.strip_suffix('\r') {
            return Err(NoProgram::CarriageReturn(line.escape_default().to_string()));
        }
        let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
        let interpreter = words.next().ok_or(NoProgram::NoInterpreter)?;
        let by_env = Path::new(interpreter).file_name().is_some_and(|name| name == "env");
        let looked_for = words.find(|word| !word.starts_with('-') && !word.contains('=')).filter(|_| by_env);
        Ok(Program::Script { interpreter: interpreter.into(), looked_for: looked_for.map(str::to_owned) })
    }

    /// Says what it needs and this machine does not have, if that is so.
    pub fn lacks_here(&self) -> Option<String> {
        let Program::Script { interpreter, looked_for } = self else { return None };
        let shown = interpreter.display();
        if !interpreter.is_file() {
            return Some(format!("its interpreter {shown} is not on this machine; install it where the nodes run"));
        }
        let program = looked_for.as_ref().filter(|program| !on_path(program))?;
        Some(format!(
            "{shown} will look for {program}, which is not on this machine's PATH; install it where the nodes run"
        ))
    }
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_and_scripts_are_programs_and_nothing_else_is() {
        assert_eq!(Program::of(b"\x7fELF\x02\x01\x01").unwrap(), Program::Elf);
        let script = |interpreter: &str, looked_for: Option<&str>| Program::Script {
            interpreter: interpreter.into(),
            looked_for: looked_for.map(str::to_owned),
        };
        for (head, program) in [
            ("#!/bin/sh\necho", script("/bin/sh", None)),
            ("#! /bin/sh -e\n", script("/bin/sh", None)),
            ("#!/usr/bin/env python3\n", script("/usr/bin/env", Some("python3"))),
            ("#!/usr/bin/env -S A=1 python3 -u\n", script("/usr/bin/env", Some("python3"))),
            ("#!/bin/sh", script("/bin/sh", None)),
            ("#!/bin/sh\n\r\n", script("/bin/sh", None)),
        ] {
            assert_eq!(Program::of(head.as_bytes()).unwrap(), program, "{head}");
        }
        let refused = |head: &[u8]| Program::of(head).unwrap_err().to_string();
        assert!(refused(b"").starts_with("it is empty"));
        for head in [&b"PK\x03\x04"[..], b"print('x')\n", b"\x7fEL", b" #!/bin/sh\n", b"\xef\xbb\xbf#!/bin/sh\n", b"#"]
        {
            assert!(refused(head).starts_with("it begins neither"), "{head:?}");
        }
        assert!(
            refused(b"#!/bin/sh\r\necho\r\n").starts_with("its first line, `#!/bin/sh`, ends in a carriage return")
        );
        assert!(refused(b"#!/bin/sh\r").starts_with("its first line, `#!/bin/sh`, ends in a carriage return"));
        assert!(refused(b"#! \n/bin/sh").starts_with("its first line names no interpreter"));
    }

    #[test]
    fn an_interpreter_that_is_not_here_is_named() {
        let lacks = |head: &str| Program::of(head.as_bytes()).unwrap().lacks_here();
        assert_eq!(lacks("#!/bin/sh\n"), None);
        assert_eq!(lacks("\u{7f}ELF"), None);
        assert!(
            lacks("#!/opt/nowhere/python9\n").unwrap().starts_with("its interpreter /opt/nowhere/python9 is not on")
        );
        assert!(lacks("#!/usr/bin/env python9\n").unwrap().starts_with("/usr/bin/env will look for python9, which"));
    }
}
