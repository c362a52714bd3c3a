//! Writes the corpus to begin with into the folder that the command line names.
#![forbid(unsafe_code)]

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let Some(corpus) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: seeds FOLDER");
        std::process::exit(2);
    };
    for (target, files) in shardgate_fuzz::seeds::all() {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder)?;
        for (name, contents) in files {
            std::fs::write(folder.join(name), contents)?;
        }
    }
    Ok(())
}
