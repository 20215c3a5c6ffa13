// Builds what `replit --serve` shows at `/` from src/ into pipelines/server/page, which the wheel ships.
//
//   npm run build            writes the files
//   node build.mjs --check   fails if the files there are not what these sources give, or are too large

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import esbuild from "esbuild";

const HERE = dirname(fileURLToPath(import.meta.url));
const TARGET = join(HERE, "../pipelines/server/page");
const MOST_COMPRESSED = 400_000; // bytes, all files together

/** The bundle, and the packages whose code is in it. */
async function bundle() {
  const built = await esbuild.build({
    absWorkingDir: HERE,
    entryPoints: { page: "src/main.ts", style: "src/page.css" },
    outdir: "out",
    bundle: true,
    minify: true,
    write: false,
    metafile: true,
    charset: "utf8",
    legalComments: "none", // LICENSES.txt has them whole
    format: "esm",
    target: ["es2022"],
  });
  const files = Object.fromEntries(
    built.outputFiles.map((file) => [file.path.endsWith(".css") ? "page.css" : "page.js", file.contents]),
  );
  const packages = Object.keys(built.metafile.inputs)
    .map((path) => /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1])
    .filter((name) => name !== undefined);
  return { files, packages: [...new Set(packages)].sort() };
}

/** The licences of the bundled packages, as each asks to be kept with copies of it. */
async function licences(packages) {
  const parts = await Promise.all(
    packages.map(async (name) => {
      const folder = join(HERE, "node_modules", name);
      const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
      return `${name} ${version} (${license})\n\n${(await readFile(join(folder, "LICENSE"), "utf8")).trim()}\n`;
    }),
  );
  return Buffer.from(`page.js holds code of these packages.\n\n${parts.join(`\n${"-".repeat(80)}\n\n`)}`);
}

async function build() {
  const { files, packages } = await bundle();
  for (const name of ["index.html", "icon.svg"]) files[name] = await readFile(join(HERE, "src", name));
  files["LICENSES.txt"] = await licences(packages);
  return files;
}

/** What is wrong with the files that ship, a line each. */
async function differences(files) {
  const wrong = [];
  for (const [name, content] of Object.entries(files)) {
    const shipped = await readFile(join(TARGET, name)).catch(() => null);
    if (shipped === null || Buffer.compare(shipped, content) !== 0) {
      wrong.push(`${name} is not what the sources give; run: npm ci && npm run build`);
    }
  }
  return wrong;
}

const files = await build();
const compressed = Object.values(files).reduce((sum, content) => sum + gzipSync(content, { level: 9 }).length, 0);
const problems = compressed > MOST_COMPRESSED ? [`${compressed} bytes compressed; at most ${MOST_COMPRESSED}`] : [];
if (process.argv.includes("--check")) {
  problems.push(...(await differences(files)));
} else {
  await mkdir(TARGET, { recursive: true });
  for (const [name, content] of Object.entries(files)) await writeFile(join(TARGET, name), content);
}
console.log(`${Object.keys(files).length} files, ${compressed} bytes compressed`);
for (const problem of problems) console.error(problem);
process.exitCode = problems.length ? 1 : 0;
