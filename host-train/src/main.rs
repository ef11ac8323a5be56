//! The `host-train` binary: hands over to the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    host_train::cli::main()
}
