// The demo page in a real browser, against the real server.

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { keep, launch } from "./lib/browser.mjs";
import { Server } from "./lib/server.mjs";
import { Worker } from "./lib/worker.mjs";

const GRACE = 700; // ms
const DESKTOP = { viewport: { width: 1280, height: 900 } };
const PHONE = { viewport: { width: 375, height: 812 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

describe("the demo page", () => {
  const server = new Server(["--dev", "--presence-grace", `${GRACE}ms`]);
  let browser;
  let worker;
  let contexts = [];
  let complaints = []; // errors and warnings of the consoles of this test's pages
  let foreseen = null; // what this test makes them say

  before(async () => {
    await server.start();
    worker = new Worker(server);
    browser = await launch();
  });
  afterEach(async () => {
    await Promise.all(contexts.map((context) => context.close()));
    contexts = [];
    const heard = complaints;
    complaints = [];
    const expected = foreseen;
    foreseen = null;
    assert.deepEqual(heard.filter((text) => !expected?.test(text)), [], "a page complained");
  });
  after(async () => {
    worker?.close();
    await browser?.close();
    await server.stop();
  });

  /** A browser of its own, on the page. What it says late is no complaint about the next test. */
  async function open(query, device = DESKTOP) {
    const heard = complaints;
    const context = await browser.newContext({ reducedMotion: "reduce", ...device });
    contexts.push(context);
    context.setDefaultTimeout(15_000);
    const page = await context.newPage();
    page.on("pageerror", (error) => heard.push(error.stack));
    page.on("console", (message) => ["error", "warning"].includes(message.type()) && heard.push(message.text()));
    await page.goto(`${server.url}/demo/${query}`);
    return page;
  }

  async function connected(user, { device, transport = "websocket", pace = 25 } = {}) {
    const page = await open(`?user=${user}&transport=${transport === "websocket" ? "upgrade" : transport}&pace=${pace}`, device);
    await settled(page, transport);
    return page;
  }

  /** A page that goes away in the middle of an upgrade makes Chromium warn, so every test waits for the upgrade before it ends. */
  const settled = (page, transport = "websocket") => page.getByRole("status").filter({ hasText: `Connected · ${transport}` }).waitFor();

  const card = (page, jobId) => page.getByRole("listitem").filter({ has: page.locator("h3") }).filter({ hasText: jobId });
  const person = (page, user) => page.locator("#people li").filter({ has: page.getByText(user, { exact: true }) });
  const online = (page, user) => person(page, user).and(page.locator(":not(.gone)")).waitFor();
  const offline = (page, user) => person(page, user).and(page.locator(".gone")).waitFor();
  const firstJob = async (page) => (await page.locator("#jobs code").first().textContent()).trim();

  test("shows who comes and goes, and a job from 0 to done in every tab of its user only", async () => {
    const ada = await connected("ada");
    await keep(ada, "desktop-empty");
    const again = await connected("ada", { transport: "polling" });
    const bob = await connected("bob");
    await online(ada, "bob");
    await online(bob, "ada");
    assert.equal(await ada.locator("#people-count").textContent(), "2");

    await ada.getByRole("button", { name: "Start a job" }).click();
    const bar = ada.getByRole("progressbar").first();
    await bar.waitFor();
    const jobId = await firstJob(ada);
    await card(ada, jobId).filter({ hasText: "Running" }).waitFor();
    await keep(ada, "desktop-running");
    for (const page of [ada, again]) await card(page, jobId).filter({ hasText: "Completed" }).waitFor();
    assert.equal(await bar.getAttribute("aria-valuenow"), "100");

    await worker.send("bob", "barrier", {});
    await bob.locator('[data-event="barrier"]').waitFor();
    assert.equal(await bob.locator("#jobs > li").count(), 0, "bob sees a job of ada's");

    await bob.context().close();
    contexts = contexts.filter((context) => context !== bob.context());
    await offline(ada, "bob");
    await keep(ada, "desktop-done");
  });

  test("works for another user, fails jobs, and takes bursts whole", async () => {
    const eve = await connected("eve");
    const fay = await connected("fay");
    await eve.getByLabel("For", { exact: true }).fill("fay");
    await eve.getByRole("button", { name: "A failing job" }).click();
    await fay.locator('#jobs [data-state="failed"]').waitFor();
    await eve.getByRole("button", { name: "Burst of 1,000" }).click();
    const burst = fay.locator("#jobs > li").filter({ hasText: "Burst of 1,000 events" });
    await burst.filter({ hasText: "All here" }).waitFor();
    assert.match(await burst.textContent(), /1,000 of 1,000 received, in order/);
    assert.equal(await eve.locator("#jobs > li").count(), 0);
    await keep(fay, "desktop-burst");
  });

  test("lets the worker pause, go on, complete and fail", async () => {
    const page = await connected("gil", { pace: 60_000 });
    await page.getByRole("button", { name: "Start a job" }).click();
    const hand = page.locator("#in-hand li").first();
    await hand.getByRole("button", { name: "Pause" }).click();
    await hand.getByText("paused").waitFor();
    await hand.getByRole("button", { name: "Go on" }).click();
    await hand.getByRole("button", { name: "Complete" }).click();
    await page.locator('#jobs [data-state="completed"]').waitFor();
    await page.getByRole("button", { name: "Start a job" }).click();
    await page.locator("#in-hand li").filter({ has: page.getByRole("button", { name: "Fail" }) }).first().getByRole("button", { name: "Fail" }).click();
    await page.locator('#jobs [data-state="failed"]').waitFor();
  });

  test("a reload in mid-job keeps the user and the bar, and others see no flap", async () => {
    const watcher = await connected("watcher");
    const page = await connected("hal", { pace: 60_000 });
    await online(watcher, "hal");
    await worker.send("hal", "job_progress", { jobId: "slow", title: "Slow job", progress: 40 });
    await card(page, "Slow job").getByText("40%").waitFor();
    await page.reload();
    await settled(page);
    await card(page, "Slow job").getByText("40%").waitFor();
    await page.getByRole("button", { name: "Take over: Slow job" }).waitFor();
    const bird = await connected("canary");
    await online(watcher, "canary");
    await bird.context().close(); // after the reload, so its end comes after any that the reload could cause
    contexts = contexts.filter((context) => context !== bird.context());
    await offline(watcher, "canary");
    const flaps = await watcher.locator('[data-event="user_offline"]').filter({ hasText: '"hal"' }).count();
    assert.equal(flaps, 0);
    await online(watcher, "hal");
  });

  test("a reload in mid-job does not end the page's own worker", async () => {
    const page = await connected("hugo", { pace: 200 }); // five seconds for the job, so that the reload finds it running
    await page.getByRole("button", { name: "Start a job" }).click();
    const jobId = await firstJob(page);
    await card(page, jobId).getByText(/^[1-9]\d?%$/).waitFor();
    await page.reload();
    await card(page, jobId).filter({ hasText: "Running" }).waitFor();
    await card(page, jobId).filter({ hasText: "Completed" }).waitFor();
    await settled(page);
    assert.equal(await page.locator("#jobs > li").count(), 1);
  });

  test("finished jobs are there after a reload and on a second device, and no event comes twice", async () => {
    const page = await connected("ida");
    await page.getByRole("button", { name: "Start a job" }).click();
    await page.locator('#jobs [data-state="completed"]').waitFor();
    await page.getByRole("button", { name: "A failing job" }).click();
    await page.locator('#jobs [data-state="failed"]').waitFor();
    const shown = async (tab) => (await tab.locator("#jobs > li").allTextContents()).map((text) => text.trim());
    const before = await shown(page);
    await page.reload();
    const second = await connected("ida"); // a context of its own: another device
    for (const tab of [page, second]) {
      await settled(tab);
      await tab.locator('#jobs [data-state="completed"]').waitFor();
      await tab.locator('#jobs [data-state="failed"]').waitFor();
      assert.deepEqual(await shown(tab), before);
      // What was confirmed before is state now, not an event.
      assert.equal(await tab.locator('[data-event="job_completed"], [data-event="job_failed"]').count(), 0);
    }
    await keep(second, "desktop-second-device");
  });

  test("goes offline, has the job finished, comes back to its result", async () => {
    const page = await connected("ian", { pace: 1000 }); // offline for two seconds: long enough to be seen on a busy machine
    const left = page.getByRole("status").filter({ hasText: "Offline, on purpose" }).waitFor();
    await page.getByRole("button", { name: "Go offline, finish the job, come back" }).click();
    await left;
    await page.locator("#away-note").filter({ hasText: "Finished while you were away; the result (stored)" }).waitFor();
    await page.locator('#jobs [data-state="completed"]').waitFor();
    await settled(page);
    await keep(page, "desktop-away");
  });

  test("a stalled job is shown as such", async () => {
    const page = await connected("jan");
    await worker.send("jan", "job_progress", { jobId: "s", title: "Silent job", progress: 30 }, { staleAfter: 0.3 });
    await page.locator('#jobs [data-state="stalled"]').filter({ hasText: "Silent job" }).waitFor();
    await keep(page, "desktop-stalled");
  });

  test("signing in takes a name; signing out forgets it", async () => {
    const page = await open("");
    await keep(page, "desktop-sign-in");
    await page.getByLabel("Your name").fill("kim");
    await page.getByRole("button", { name: "Connect" }).click();
    await settled(page);
    const stored = await page.evaluate(() => JSON.stringify({ ...sessionStorage, ...localStorage }) + document.cookie);
    assert.match(stored, /kim/);
    assert.ok(!stored.includes("eyJ"), "the token is stored");
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("status").filter({ hasText: "Not connected" }).waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.length + localStorage.length + document.cookie.length), 0);
    await page.reload();
    await page.getByLabel("Your name").waitFor();
  });

  test("a refusal is shown with its code", async () => {
    foreseen = /status of 400/; // Chromium reports the answer itself; by polling, since nothing tells of an upgrade then
    const page = await open(`?user=${encodeURIComponent("x".repeat(200))}&transport=polling`);
    await page.getByRole("status").filter({ hasText: "Refused · invalid_user_id" }).waitFor();
    await page.getByRole("button", { name: "Connect again" }).waitFor();
  });

  test("a worker that sends a user away is shown", async () => {
    const page = await connected("lea");
    await worker.call("POST", "/v1/users/lea/disconnect", { reason: "maintenance" });
    await page.getByRole("status").filter({ hasText: "maintenance" }).waitFor();
    await page.getByRole("button", { name: "Connect again" }).click();
    await settled(page);
  });

  test("markup in names and data stays text", async () => {
    const evil = '<img src=x onerror="document.title=1">';
    const page = await connected("mia");
    const other = await open(`?user=${encodeURIComponent(evil)}`);
    await settled(other);
    await online(page, evil);
    await worker.send("mia", "job_progress", { jobId: evil, title: evil, message: evil, progress: 10 });
    await card(page, evil).waitFor();
    assert.equal(await page.locator("img").count(), 0);
    assert.equal(await page.title(), "jobwire demo");
  });

  test("fits a phone, in the dark as well", async () => {
    for (const colorScheme of ["light", "dark"]) {
      const start = await open("", { ...PHONE, colorScheme });
      await start.getByLabel("Your name").waitFor();
      await keep(start, `phone-sign-in-${colorScheme}`);
      const page = await connected(`nia-${colorScheme}`.padEnd(128, "-long"), { device: { ...PHONE, colorScheme } });
      await page.getByRole("button", { name: "Start a job" }).tap();
      await page.getByRole("button", { name: "A failing job" }).tap();
      await page.locator('#jobs [data-state="completed"]').waitFor();
      await page.locator('#jobs [data-state="failed"]').waitFor();
      for (const p of [start, page]) {
        const { wide, tall } = await p.evaluate(() => ({
          wide: document.documentElement.scrollWidth,
          tall: [...document.querySelectorAll("button")].filter((b) => b.offsetParent && b.offsetHeight < 30).map((b) => b.textContent),
        }));
        assert.ok(wide <= PHONE.viewport.width, `the page is ${wide} px wide`);
        assert.deepEqual(tall, [], "buttons too low for a finger");
      }
      await keep(page, `phone-${colorScheme}`);
    }
    const dark = await connected("oda", { device: { ...DESKTOP, colorScheme: "dark" } });
    await dark.getByRole("button", { name: "Start a job" }).click();
    await dark.getByRole("button", { name: "A failing job" }).click();
    await dark.locator('#jobs [data-state="failed"]').waitFor();
    await keep(dark, "desktop-dark");
  });
});

describe("the demo outside --dev", () => {
  const server = new Server(["--demo"]);
  let browser;
  before(async () => {
    await server.start();
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    await server.stop();
  });

  test("gives no key away, and asks for one", async () => {
    const config = await fetch(`${server.url}/demo/config.json`).then((answer) => answer.json());
    assert.deepEqual(config, { api: "/v1" });
    const page = await browser.newPage();
    await page.goto(`${server.url}/demo/?user=pat&pace=25`);
    await page.getByLabel("API key").fill("x".repeat(30));
    await page.getByRole("button", { name: "Use" }).click();
    await page.getByRole("button", { name: "Start a job" }).click();
    await page.getByLabel("API key").fill(server.key); // the wrong one was refused: asked again
    await page.getByRole("button", { name: "Use" }).click();
    await page.getByRole("button", { name: "Start a job" }).click();
    await page.locator('#jobs [data-state="completed"]').waitFor();
    const stored = await page.evaluate(() => JSON.stringify({ ...sessionStorage, ...localStorage }) + document.cookie);
    assert.ok(!stored.includes(server.key), "the key is stored");
  });

  test("refuses tokens to other sites", async () => {
    const ask = (headers) =>
      fetch(`${server.url}/demo/token`, { method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: '{"userId":"ada"}' });
    assert.equal((await ask({})).status, 200);
    assert.equal((await ask({ "Sec-Fetch-Site": "cross-site" })).status, 403);
    assert.equal((await ask({ "Content-Type": "text/plain" })).status, 415);
  });
});

test("without --demo there is no demo", async () => {
  const server = await new Server().start();
  try {
    assert.equal((await fetch(`${server.url}/demo/`)).status, 404);
    assert.equal((await fetch(`${server.url}/demo/token`, { method: "POST" })).status, 404);
  } finally {
    await server.stop();
  }
});
