//! A shell in an empty home folder, which runs commands as a user would paste them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A shell with its own home folder. Commands run in an empty project folder.
#[derive(Debug)]
pub struct Shell {
    folder: TempDir,
}

/// A called program and its arguments.
pub type Call = Vec<String>;

impl Default for Shell {
    fn default() -> Self {
        Self::new()
    }
}

impl Shell {
    /// Creates a shell with an empty home folder.
    pub fn new() -> Self {
        let shell = Self { folder: tempfile::tempdir().unwrap() };
        for folder in ["bin", "home", "project"] {
            fs::create_dir(shell.path(folder)).unwrap();
        }
        // Makes curl print the body, then the status on its own line, without changing the command.
        shell.write("home/.curlrc", "silent\nshow-error\nwrite-out = \"\\n%{http_code}\"\n");
        shell
    }

    /// Replaces programs by stubs that only record their arguments.
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

    /// Reads a file; empty if it does not exist.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// Runs a pasted command and returns its output.
    #[track_caller]
    pub fn run(&self, pasted: &str) -> String {
        let output = self.output(pasted);
        assert!(output.status.success(), "{pasted}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a pasted command and returns its output, even if its last program failed.
    pub fn look(&self, pasted: &str) -> String {
        String::from_utf8(self.output(pasted).stdout).unwrap()
    }

    /// Runs a pasted curl command and returns status and body.
    pub fn curl(&self, pasted: &str) -> (u16, String) {
        let printed = self.run(pasted);
        let (body, status) = printed.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    /// Takes the calls of stubs since the last time.
    pub fn calls(&self) -> Vec<Call> {
        let noted = self.read("calls");
        self.write("calls", "");
        let calls = noted.split_terminator("\0\n");
        calls.map(|call| call.split('\0').map(str::to_owned).collect()).collect()
    }

    fn output(&self, pasted: &str) -> Output {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(pasted).current_dir(self.path("project"));
        // Keeps nothing of the machine's environment except `PATH`.
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
