//! A shell of a person who has nothing configured: commands are run as they would be pasted.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A shell with a home of its own. Commands run in an empty project inside it.
#[derive(Debug)]
pub struct Shell {
    folder: TempDir,
}

/// A program that was called, and its arguments.
pub type Call = Vec<String>;

impl Default for Shell {
    fn default() -> Self {
        Self::new()
    }
}

impl Shell {
    /// A shell in whose home there is nothing yet.
    pub fn new() -> Self {
        let shell = Self { folder: tempfile::tempdir().unwrap() };
        for folder in ["bin", "home", "project"] {
            fs::create_dir(shell.path(folder)).unwrap();
        }
        // curl's own settings leave the command as it is: the body, then the status on a line of its own.
        shell.write("home/.curlrc", "silent\nshow-error\nwrite-out = \"\\n%{http_code}\"\n");
        shell
    }

    /// Puts programs in the place of others, that only note how they are called.
    pub fn stub(&self, programs: &[&str]) {
        for program in programs {
            let note = format!("#!/bin/sh\nprintf '%s\\0' {program} \"$@\" >>\"$CALLS\"\nprintf '\\n' >>\"$CALLS\"\n");
            self.write(&format!("bin/{program}"), &note);
            let executable = fs::Permissions::from_mode(0o700);
            fs::set_permissions(self.path(&format!("bin/{program}")), executable).unwrap();
        }
    }

    /// Writes a file: `home/…` or `project/…`.
    pub fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Reads a file; nothing where there is none.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// Runs what was pasted, and answers what it printed.
    #[track_caller]
    pub fn run(&self, pasted: &str) -> String {
        let output = self.output(pasted);
        assert!(output.status.success(), "{pasted}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs what was pasted, and answers what it printed, whether or not its last program found what it looked for.
    pub fn look(&self, pasted: &str) -> String {
        String::from_utf8(self.output(pasted).stdout).unwrap()
    }

    /// Runs curl as it was pasted, and answers the status and the body.
    pub fn curl(&self, pasted: &str) -> (u16, String) {
        let printed = self.run(pasted);
        let (body, status) = printed.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    /// The calls of stubs since the last look.
    pub fn calls(&self) -> Vec<Call> {
        let noted = self.read("calls");
        self.write("calls", "");
        let calls = noted.split_terminator("\0\n");
        calls.map(|call| call.split('\0').map(str::to_owned).collect()).collect()
    }

    fn output(&self, pasted: &str) -> Output {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(pasted).current_dir(self.path("project"));
        // Nothing of the machine's own settings, but for where its programs are.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name != "PATH") {
            shell.env_remove(name);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(self.path("bin")).chain(std::env::split_paths(&path));
        shell.env("PATH", std::env::join_paths(path).unwrap());
        shell.env("HOME", self.path("home")).env("CALLS", self.path("calls")).env("LC_ALL", "C");
        shell.output().unwrap()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(Path::new(path))
    }
}
