// Reads `go test -json` from standard input, shows it as a person wants to read
// it, and counts. With TALLY set, appends "passed failed skipped" to that file.

import { appendFileSync } from "node:fs";
import { createInterface } from "node:readline";

const outcomes = { pass: 0, fail: 0, skip: 0 };
const output = new Map(); // "package test" → its lines, until it is known to have passed
const parents = new Set(); // tests with subtests: their subtests count
const ended = [];

const keyOf = ({ Package, ImportPath, Test = "" }) => `${Package ?? ImportPath} ${Test}`;

for await (const line of createInterface({ input: process.stdin })) {
  let event;
  try {
    event = JSON.parse(line);
  } catch {
    console.log(line); // such as a message of the linker
    continue;
  }
  const key = keyOf(event);
  switch (event.Action) {
    case "run":
      if (event.Test?.includes("/")) parents.add(`${event.Package} ${event.Test.slice(0, event.Test.lastIndexOf("/"))}`);
      break;
    case "output":
    case "build-output":
      if (!output.has(key)) output.set(key, []);
      output.get(key).push(event.Output);
      break;
    case "build-fail":
      process.stdout.write(output.get(key)?.join("") ?? "");
      break;
    case "pass":
    case "fail":
    case "skip":
      if (event.Test) {
        ended.push({ key, action: event.Action });
        if (event.Action !== "pass") process.stdout.write(output.get(key)?.join("") ?? "");
      } else {
        const seconds = event.Elapsed === undefined ? "" : ` ${event.Elapsed.toFixed(1)}s`;
        const words = { pass: "ok  ", fail: "FAIL", skip: "-   " };
        if (event.Action === "fail") {
          process.stdout.write(output.get(key)?.join("") ?? "");
          // A panic or a build that failed ends a package without a failed test.
          if (!ended.some((test) => test.action === "fail" && test.key.startsWith(`${event.Package} `))) outcomes.fail++;
        }
        console.log(`${words[event.Action]} ${event.Package}${event.Action === "skip" ? " (no tests)" : seconds}`);
      }
      output.delete(key);
  }
}

for (const { key, action } of ended) {
  const counted = parents.has(key) && (action !== "fail" || ended.some((test) => test.action === "fail" && test.key.startsWith(`${key}/`)));
  if (!counted) outcomes[action]++;
}
const { pass, fail, skip } = outcomes;
console.log(`Go: ${pass} passed, ${fail} failed, ${skip} skipped`);
if (process.env.TALLY) appendFileSync(process.env.TALLY, `${pass} ${fail} ${skip}\n`);
if (fail > 0 || pass === 0) process.exitCode = 1;
