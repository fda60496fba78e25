// Clicks through the console in Chromium, against a real gateway with Redis: node flows.mjs PROGRAM
// CALLGATE_SCREENSHOTS: a folder for screenshots of all pages.
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { chromium } from "playwright-core";
import { axe, openPage, screenshots } from "./browser.mjs";
import { adminToken, eventually, freePort, Gateway, startRedis, startUpstream, stop, stopAll } from "./stage.mjs";

const program = process.argv[2];
const folder = process.env.CALLGATE_SCREENSHOTS;
if (folder) await mkdir(folder, { recursive: true });

const upstream = await startUpstream();
const redisPort = await freePort();
const redis = await startRedis(redisPort);
const [ops, viewer] = [adminToken(program, "ops", "write"), adminToken(program, "viewer", "read")];
const target = `http://127.0.0.1:${upstream.address().port}`;
const routes = `routes:
  - { name: stream, path: "/stream/{*rest}", permission: "calls:stream", upstream: up }
  - { name: everything, path: "/{*rest}", upstream: up }
upstreams: { up: { endpoints: ["${target}"] } }
plans:
  standard: { limits: { minute: 60/1m, hour: 1000/1h } }
  gold: { limits: { minute: 600/1m, hour: 10000/1h } }
default_plan: standard
`;
const gateway = await new Gateway(program, `store: { redis: { url: "redis://127.0.0.1:${redisPort}", on_failure: local } }
admin: { tokens: [${ops.line}, ${viewer.line}] }
${routes}`).start();
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

let page;
let made = null;
const button = (name) => page.getByRole("button", { name, exact: true });
const heading = (name) => page.getByRole("heading", { level: 1, name, exact: true });
const dialog = () => page.getByRole("dialog");
const goTo = (name) => page.getByRole("navigation", { name: "Pages" }).getByRole("link", { name }).click();
const panel = (name) => page.getByRole("region", { name, exact: true });
const row = (name) => page.getByRole("row", { name });
const logIn = async (token) => {
  await page.getByLabel("Admin token").fill(token);
  await button("Log in").click();
};

const flows = {
  "a wrong admin token is refused, a good one opens the overview": async () => {
    page = await openPage(browser, gateway.url);
    await page.getByLabel("Admin token").waitFor();
    assert.equal(await page.title(), "Log in · Callgate");
    await axe(page, "login");
    await logIn("callgate_admin_wrong");
    await page.getByText("The admin token is not valid.").waitFor();
    await logIn(ops.text);
    await heading("Overview").waitFor();
    assert.equal(await page.title(), "Overview · Callgate");
    assert.equal(await page.evaluate(() => JSON.stringify([localStorage, sessionStorage, document.cookie]).includes("callgate_admin")), false);
    await page.getByText("Live", { exact: true }).waitFor();
    await page.getByText("ops", { exact: true }).waitFor();
  },

  "a token is made, and its secret shown once": async () => {
    await goTo("Tokens");
    await page.getByText("There are no tokens yet").waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.tagName), "H1");
    await button("New token").first().click();
    await button("Make the token").click();
    await dialog().getByText(/name/i).first().waitFor();
    await dialog().locator("[aria-invalid]").first().waitFor();
    await axe(page, "the form of a token");
    await dialog().getByLabel("Name").fill("Dialler");
    await dialog().getByLabel("Account").fill("acme");
    await dialog().getByLabel("Permissions").fill("calls:stream");
    await dialog().getByLabel("Plan").selectOption("gold");
    await dialog().getByLabel("Expires").fill("2099-12-31T12:00");
    await button("Make the token").click();
    const secret = await dialog().getByLabel("The token").textContent();
    await axe(page, "the secret");
    await button("Copy").click();
    await dialog().getByText("Copied").waitFor();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), secret);
    await button("I have it").click();
    await heading("Dialler").waitFor();
    made = { secret, id: decodeURIComponent((await page.evaluate(() => location.hash)).split("/").at(-1)) };
    assert.equal(await page.getByText(secret).count(), 0);
    assert.equal(await gateway.send("/hello", secret), 200);
  },

  "the page of a token shows its limits as they are used": async () => {
    for (let sent = 0; sent < 8; sent++) await gateway.send("/hello", made.secret);
    await panel("Limits").getByText("of 600").waitFor();
    await panel("Limits").locator("b", { hasText: /^9$/ }).first().waitFor();
    await panel("Limits").getByText("of 10,000").waitFor();
    await panel("Token").getByText("gold").waitFor();
    await panel("Changes of this token").getByText("create", { exact: true }).waitFor();
    await panel("Use over time").getByText("Admitted", { exact: true }).waitFor();
    await panel("Use over time").getByText("Hours").click();
    await panel("Use over time").getByText("three days, by the hour").waitFor();
    await button("Clear the log").click();
    await dialog().getByRole("button", { name: "Clear the log" }).click();
    await panel("Limits").locator("b", { hasText: /^0$/ }).first().waitFor();
  },

  "a token is changed": async () => {
    await button("Change").click();
    await dialog().getByLabel("Name").fill("Dialler 2");
    await dialog().getByLabel("Own limits").fill("minute=5/1m");
    await dialog().getByLabel("Calls at one time").fill("3");
    await dialog().getByRole("button", { name: "Change", exact: true }).click();
    await heading("Dialler 2").waitFor();
    await panel("Limits").getByText("of 5", { exact: false }).first().waitFor();
    await panel("Changes of this token").getByText("Dialler 2").first().waitFor();
  },

  "a token is rotated, and its old secret works for the grace period": async () => {
    await button("Rotate").click();
    await dialog().getByLabel("Grace period").selectOption("3600");
    await button("Make a new secret").click();
    const old = made.secret;
    made.secret = await dialog().getByLabel("The token").textContent();
    await dialog().getByText("The old secret works until").waitFor();
    await button("I have it").click();
    await panel("Token").getByText("Old secrets until").waitFor();
    assert.deepEqual([await gateway.send("/hello", old), await gateway.send("/hello", made.secret)], [200, 200]);
  },

  "a token is disabled and enabled": async () => {
    await button("Disable").click();
    await dialog().getByRole("button", { name: "Disable", exact: true }).click();
    await panel("Token").getByText("disabled").waitFor();
    await eventually("requests are refused", async () => (await gateway.send("/hello", made.secret)) === 401);
    await button("Enable").click();
    await panel("Token").getByText("active").waitFor();
    await eventually("requests pass", async () => (await gateway.send("/hello", made.secret)) === 200);
  },

  "open calls are shown, and ended": async () => {
    const socket = await gateway.webSocket("/stream/a", made.secret);
    const stream = await gateway.listen("/stream/b", made.secret);
    assert.deepEqual([socket.status, stream.status], [101, 200]);
    await panel("Open calls").getByText("WebSocket").waitFor();
    await goTo("Calls");
    await page.getByRole("cell", { name: "WebSocket" }).waitFor();
    await page.getByRole("cell", { name: "Events" }).waitFor();
    await axe(page, "calls");
    await row(/WebSocket/).getByRole("button").click();
    await dialog().getByLabel("Reason").fill("a test");
    await axe(page, "the end of a call");
    await button("End the call").click();
    await socket.closed;
    await page.getByRole("cell", { name: "WebSocket" }).waitFor({ state: "detached" });
    await page.getByLabel("Account").fill("nobody");
    await page.getByText("No open call fits").waitFor();
    stream.close();
  },

  "the traffic shows routes, upstreams and their endpoints": async () => {
    await goTo("Traffic");
    await row(/everything/).waitFor();
    await row(new RegExp(target)).getByText("up", { exact: true }).first().waitFor();
    await panel("Most limited tokens").getByText(/No token was limited|Refused/).first().waitFor();
    await page.getByText("Busiest first").click();
    await page.getByRole("radio", { name: "Busiest first" }).and(page.locator(":checked")).waitFor();
  },

  "the configuration is shown without secrets, and reloaded": async () => {
    await goTo("Configuration");
    await page.getByText("default_plan").waitFor();
    assert.equal(await page.getByText(ops.line.match(/[0-9a-f]{64}/)[0]).count(), 0);
    gateway.edit("gold: { limits: { minute: 600/1m,", "gold: { limits: { minute: 700/1m,");
    await button("Reload").click();
    await panel("Last reload").getByText("gold").waitFor();
    await panel("Last reload").getByText("successful").waitFor();
    await page.getByText("700/1m").waitFor();
    gateway.edit("default_plan: standard", "default_plan: nothing");
    await button("Reload").click();
    await page.getByText("Not reloaded: the configuration before stays in force").waitFor();
    gateway.edit("default_plan: nothing", "default_plan: standard");
    await button("Reload").click();
    await panel("Last reload").getByText("successful").waitFor();
  },

  "the audit trail is filtered, and its filter is in the address": async () => {
    await goTo("Audit");
    await page.getByRole("row").filter({ hasText: "end call" }).waitFor();
    await page.getByRole("combobox", { name: "Action" }).selectOption("rotate");
    await page.getByRole("row").filter({ hasText: "end call" }).waitFor({ state: "detached" });
    await eventually("the address has the filter", () => page.url().endsWith("#/audit?action=rotate"));
    await page.getByRole("link", { name: made.id }).first().click();
    await heading("Dialler 2").waitFor();
    await page.goBack();
    await heading("Audit").waitFor();
    await page.getByRole("row").filter({ hasText: "rotate" }).waitFor();
    assert.equal(await page.getByRole("combobox", { name: "Action" }).inputValue(), "rotate");
  },

  "axe finds nothing on any page, in both schemes": async () => {
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      for (const name of ["Overview", "Tokens", "Calls", "Traffic", "Configuration", "Audit"]) {
        await goTo(name);
        await heading(name).waitFor();
        await page.locator(".loading").first().waitFor({ state: "detached" });
        await axe(page, `${name}, ${colorScheme}`);
      }
      await page.evaluate((id) => (location.hash = `#/tokens/${id}`), made.id);
      await heading("Dialler 2").waitFor();
      await axe(page, `a token, ${colorScheme}`);
    }
    await page.emulateMedia({ colorScheme: "light" });
  },

  "the switch of colours is kept": async () => {
    await page.getByTitle("Dark").click();
    assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
    await page.getByTitle("As the system").click();
    assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), undefined);
  },

  "the keyboard reaches everything that matters": async () => {
    await goTo("Overview");
    await heading("Overview").waitFor();
    const skip = page.getByRole("link", { name: "Skip to the content" });
    await skip.focus();
    await eventually("the link is visible", async () => (await skip.boundingBox()).y >= 0);
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement.tagName), "H1");
    await goTo("Tokens");
    await button("New token").press("Enter");
    await dialog().waitFor();
    await page.keyboard.press("Escape");
    await dialog().waitFor({ state: "detached" });
    await eventually("the focus is back", () => page.evaluate(() => document.activeElement.textContent === "New token"));
  },

  ...(folder && {
    "screenshots are taken": async () => {
      // Before the requests, which use its limit up.
      await fetch(`${gateway.url}api/limits/${made.id}`, { method: "DELETE", headers: { authorization: `Bearer ${ops.text}` } });
      const call = await gateway.webSocket("/stream/a", made.secret);
      for (let sent = 0; sent < 30; sent++) await gateway.send("/hello", made.secret);
      await screenshots(browser, gateway, ops.text, made.id, folder);
      call.close();
    },
  }),

  "a token is revoked after its id is typed": async () => {
    await page.getByRole("link", { name: "Dialler 2" }).click();
    await button("Revoke").click();
    const confirm = dialog().getByRole("button", { name: "Revoke", exact: true });
    assert.equal(await confirm.isDisabled(), true);
    await dialog().getByLabel("Type the token's id to confirm").fill(made.id);
    await confirm.click();
    await panel("Token").getByText("revoked", { exact: true }).waitFor();
    await page.getByText("A revoked token can't be changed.").waitFor();
    await eventually("requests are refused", async () => (await gateway.send("/hello", made.secret)) === 401);
  },

  "trouble with Redis is shown while it lasts": async () => {
    await goTo("Overview");
    await page.getByText("All is well.").waitFor();
    await stop(redis);
    await page.getByRole("region", { name: "What is wrong now" }).waitFor();
    await panel("Store").getByText("unreachable", { exact: true }).waitFor();
    await axe(page, "the overview in trouble");
    await startRedis(redisPort);
    await page.getByText("All is well.").waitFor({ timeout: 20_000 });
  },

  "a lost connection is shown, and found again": async () => {
    await stop(gateway.child);
    await page.getByText("The gateway does not report").waitFor();
    await axe(page, "without the gateway");
    await gateway.start();
    await button("Try now").click({ timeout: 2000 }).catch(() => {});
    await page.getByText("The gateway does not report").waitFor({ state: "detached" });
    await page.getByText("Live", { exact: true }).waitFor();
  },

  "the role read is offered nothing that it may not do": async () => {
    await button("Log out").click();
    await logIn(viewer.text);
    await page.getByText("read only").waitFor();
    for (const [name, label] of [["Tokens", "New token"], ["Configuration", "Reload"]]) {
      await goTo(name);
      await page.getByText("Your role is read").waitFor();
      assert.equal(await button(label).count(), 0);
    }
    await page.reload();
    await page.getByText("This gateway asks for an admin token.").waitFor();
  },

  "where no token is needed, no login is asked": async () => {
    const open = await new Gateway(program, `store: memory\ntokens: { file: tokens.yaml }\n${routes}`).start();
    const other = await openPage(browser, `${open.url}#/traffic`);
    await other.getByRole("heading", { level: 1, name: "Traffic" }).waitFor();
    await other.getByText("No login needed").waitFor();
    await other.goto(`${open.url}#/nothing`);
    await other.getByText("Nothing has this address").waitFor();
    await other.context().close();
    open.remove();
  },
};

let failure = null;
for (const [name, flow] of Object.entries(flows)) {
  const began = Date.now();
  try {
    await flow();
    console.log(`ok   ${name} (${Date.now() - began} ms)`);
  } catch (error) {
    failure = error;
    console.log(`FAIL ${name}\n${error.stack}`);
    if (folder) await page?.screenshot({ path: `${folder}/failure.png` });
    break;
  }
}
await browser.close();
await stopAll();
gateway.remove();
process.exit(failure ? 1 : 0);
