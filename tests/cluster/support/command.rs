use std::process::{Command, Stdio};

/// How a command ended, and what it wrote.
#[derive(Clone, Debug)]
pub struct Run {
    pub command: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// The standard output of a command that must succeed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "`{}` failed\n{}{}", self.command, self.stdout, self.stderr);
        self.stdout
    }

    /// The standard error of a command that must end with this exit code.
    #[track_caller]
    pub fn fails_with(self, code: i32) -> String {
        assert_eq!(self.code, code, "`{}`\n{}{}", self.command, self.stdout, self.stderr);
        self.stderr
    }

    /// For conditions: the standard output, or everything it said.
    pub fn try_ok(self) -> Result<String, String> {
        if self.code == 0 { Ok(self.stdout) } else { Err(format!("{}{}", self.stdout, self.stderr)) }
    }
}

/// Runs a command to its end.
pub fn run(program: &str, args: &[&str], vars: &[(&str, &str)]) -> Run {
    let output = Command::new(program)
        .args(args)
        .envs(vars.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
    Run {
        command: format!("{program} {}", args.join(" ")),
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a command on a terminal of its own, as people do; `input` is typed into it. Both outputs come as one.
pub fn run_in_terminal(program: &str, args: &[&str], vars: &[(&str, &str)], input: &str) -> Run {
    use std::io::Write;
    let words: Vec<String> =
        [program].iter().chain(args).map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
    let line = words.join(" ");
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .envs(vars.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("script is part of Debian");
    // Dropping the handle ends the input.
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    Run {
        command: line,
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).replace('\r', ""),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
