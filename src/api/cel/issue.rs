//! What is wrong with a text, in cel-go's words and with its arrow.

use std::fmt;

/// One thing wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// In characters from the start of the text.
    pub at: usize,
    pub message: String,
}

/// Everything wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issues {
    pub text: String,
    pub issues: Vec<Issue>,
}

impl std::error::Error for Issues {}

impl fmt::Display for Issues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, issue) in self.issues.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let before: String = self.text.chars().take(issue.at).collect();
            let line = before.matches('\n').count();
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
            write!(f, "ERROR: <input>:{}:{}: {}", line + 1, column + 1, issue.message)?;
            let text = self.text.split('\n').nth(line).unwrap_or_default();
            write!(f, "\n | {text}\n | {}^", ".".repeat(column))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_shows_where() {
        let issues = Issues {
            text: "a +\nself.x".to_owned(),
            issues: vec![Issue { at: 8, message: "undefined field 'x'".to_owned() }],
        };
        assert_eq!(issues.to_string(), "ERROR: <input>:2:5: undefined field 'x'\n | self.x\n | ....^");
    }
}
