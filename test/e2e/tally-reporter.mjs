// Counts the tests of `node --test` as tally.mjs counts Go's: those that have
// no subtests.

import { appendFileSync } from "node:fs";

export default async function* tally(source) {
  let [passed, failed, skipped] = [0, 0, 0];
  for await (const { type, data } of source) {
    if (type !== "test:pass" && type !== "test:fail") continue;
    if (type === "test:pass" && data.details.type === "suite") continue;
    if (data.skip !== undefined || data.todo !== undefined) {
      skipped++;
      yield `skipped: ${data.name}\n`;
    } else if (type === "test:pass") passed++;
    else if (data.details.error?.failureType !== "subtestsFailed") failed++;
  }
  yield `Node: ${passed} passed, ${failed} failed, ${skipped} skipped\n`;
  if (process.env.TALLY) appendFileSync(process.env.TALLY, `${passed} ${failed} ${skipped}\n`);
}
