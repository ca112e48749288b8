//! The binary; everything is in the library, so that a build with other plug-ins is as short.

fn main() -> std::process::ExitCode {
    magicapi_ai_gateway::run(std::env::args_os())
}
