// Takes screenshots of all pages: node look.mjs URL FOLDER [WIDTH…]. CALLGATE_TOKEN logs in.
import { mkdir } from "node:fs/promises";
import { chromium } from "playwright-core";

const [url, folder, ...widths] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
await mkdir(folder, { recursive: true });
for (const colorScheme of ["light", "dark"]) {
  for (const width of widths.length ? widths.map(Number) : [390, 1280, 1920]) {
    const context = await browser.newContext({ viewport: { width, height: width < 500 ? 844 : 900 }, colorScheme });
    const page = await context.newPage();
    page.on("console", (message) => message.type() === "error" && console.log(`${width} ${colorScheme}: ${message.text()}`));
    page.on("pageerror", (error) => console.log(`${width} ${colorScheme}: ${error}`));
    await page.goto(url);
    if (process.env.CALLGATE_TOKEN) {
      await page.getByLabel("Admin token").fill(process.env.CALLGATE_TOKEN);
      await page.getByRole("button", { name: "Log in" }).click();
    }
    for (const name of ["overview", "tokens", "token", "calls", "traffic", "configuration", "audit"]) {
      if (name === "token") await page.locator("tbody th a").first().click();
      else await page.getByRole("navigation", { name: "Pages" }).getByRole("link", { name: new RegExp(name.slice(0, 6), "i") }).click();
      await page.locator("h1").waitFor();
      await page.waitForTimeout(450);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (overflow > 0) console.log(`${name} at ${width}: ${overflow} pixels too wide`);
      await page.screenshot({ path: `${folder}/${name}-${width}-${colorScheme}.png`, fullPage: true });
    }
    await context.close();
  }
}
await browser.close();
