// Debian's chromium, driven by Playwright, against the real API. The tests in tests/tests/e2e/dashboard.rs start it,
// and know the truth.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const ARGUMENTS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];
/** A machine that builds something else as well is slow. */
const PATIENCE_MS = 30_000;

/** Runs a part of the tests in a browser of its own; whatever the page complains about fails it. */
export async function inBrowser(part, options = {}) {
  const profile = mkdtempSync(join(tmpdir(), 'usage-analytics-chromium-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.E2E_BROWSER,
    headless: true,
    args: ARGUMENTS,
    locale: 'en-US',
    timezoneId: 'UTC',
    viewport: { width: 1440, height: 1000 },
    ...options,
  });
  context.setDefaultTimeout(PATIENCE_MS);
  const complaints = [];
  const watch = (page) => {
    page.on('pageerror', (error) => complaints.push(`error: ${error.message}`));
    page.on('dialog', (dialog) => complaints.push(`dialog: ${dialog.message()}`));
    // What the API refuses is part of some tests; a policy that is broken is of none.
    page.on('console', (line) => line.type() === 'error' && !line.text().startsWith('Failed to load resource') && complaints.push(line.text()));
    page.on('request', (request) => {
      assert.ok(request.url().startsWith(process.env.API_URL) || request.url().startsWith('blob:'), `a request to ${request.url()}`);
      assert.ok(!request.url().includes('eyJ'), 'a token in a URL that is sent');
    });
  };
  context.pages().forEach(watch);
  context.on('page', watch);
  try {
    await part(context);
    assert.deepEqual(complaints, []);
  } finally {
    await context.close();
    rmSync(profile, { recursive: true, force: true });
  }
}

/** Opens a view with a token, and waits until it is there. */
export async function open(context, query, token) {
  const page = await context.newPage();
  await page.goto(`${process.env.API_URL}/${query}#token=${token}`);
  return page;
}

/** Waits until every panel has its answer. */
export async function settled(page) {
  await page.waitForFunction(
    () =>
      document.querySelectorAll('[data-panel]').length > 0 &&
      !document.querySelector('[aria-busy="true"], .skeleton, .body[data-old]') &&
      document.querySelectorAll('[data-card] data').length === 4,
  );
}

/** All lines of a list, by their key: the text of their cells. */
export async function lines(page, panel) {
  const box = page.locator(`[data-panel="${panel}"]`);
  const more = box.getByRole('button', { name: /^Show all/ });
  if (await more.count()) await more.click();
  return box.locator('tr[data-line]').evaluateAll((rows) =>
    Object.fromEntries(
      rows.map((row) => [
        row.dataset.line,
        Object.fromEntries([...row.querySelectorAll('td')].map((cell) => [cell.dataset.of, cell.textContent.split(' ')[0]])),
      ]),
    ),
  );
}

/** The table behind a chart: its head, and the rows without their names. */
export async function table(page, panel) {
  const box = page.locator(`[data-panel="${panel}"]`);
  const button = box.getByRole('button', { name: 'Show as a table' });
  if (await button.count()) await button.click();
  return box.locator('.behind table').evaluate((element) => ({
    head: [...element.tHead.rows[0].cells].slice(1).map((cell) => cell.textContent),
    rows: [...element.tBodies[0].rows].map((row) => [...row.cells].slice(1).map((cell) => cell.textContent)),
  }));
}

/** A number as the page writes it in American English, as the truth has it. */
export const plain = (text) => {
  const digits = text.replace(/[$,]/g, '');
  return digits.includes('.') ? digits.replace(/0+$/, '').replace(/\.$/, '') : digits;
};

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** What the test tells first. */
export async function told() {
  const { value } = await answers.next();
  return JSON.parse(value);
}

/** Has the test do something to the servers, or make something, and waits for it. */
export async function ask(what) {
  console.log(`ask ${what}`);
  const { value } = await answers.next();
  return value;
}
