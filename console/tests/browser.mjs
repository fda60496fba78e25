// A page of Chromium that fails on every error of its own, axe-core, and screenshots.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export async function openPage(browser, url) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, locale: "en-US", permissions: ["clipboard-read", "clipboard-write"] });
  context.setDefaultTimeout(10_000);
  const page = await context.newPage();
  page.on("pageerror", (error) => {
    throw error;
  });
  page.on("console", (message) => {
    // What the policy of the page refuses is reported here.
    if (/content security policy/i.test(message.text())) throw new Error(message.text());
  });
  await page.goto(url);
  return page;
}

/** Fails when axe-core finds something. */
export async function axe(page, where) {
  await page.waitForTimeout(250);
  const has = await page.evaluate(() => "axe" in window);
  // By the debugger's protocol, which the policy of the page does not bind.
  if (!has) await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  if (violations.length > 0) {
    const lines = violations.flatMap(({ id, help, nodes }) => nodes.map((node) => `${id}: ${help}\n    ${node.html}\n    ${node.failureSummary}`));
    throw new Error(`axe, ${where}:\n  ${lines.join("\n  ")}`);
  }
}

export async function screenshots(browser, gateway, adminToken, id, folder) {
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [390, 1280, 1920]) {
      const page = await openPage(browser, gateway.url);
      await page.setViewportSize({ width, height: width < 500 ? 844 : 900 });
      await page.emulateMedia({ colorScheme });
      await page.getByLabel("Admin token").fill(adminToken);
      await page.getByRole("button", { name: "Log in" }).click();
      for (const name of ["overview", "tokens", `tokens/${id}`, "calls", "traffic", "configuration", "audit"]) {
        await page.evaluate((name) => (location.hash = `#/${name}`), name);
        await page.waitForTimeout(500);
        await page.screenshot({ path: `${folder}/${name.replace(`/${id}`, "-one")}-${width}-${colorScheme}.png`, fullPage: true });
      }
      await page.context().close();
    }
  }
}
