//! Parse, dispatch, exit code; nothing else.

fn main() -> std::process::ExitCode {
    minik::cli::main()
}
