// axe finds nothing, in light and dark, wide and on a phone.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { inBrowser, open, settled, table } from './browser.mjs';

const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js');

async function check(page, what) {
  // The page's policy forbids scripts of others: this one comes in by the browser's own door.
  const { readFileSync } = await import('node:fs');
  await page.evaluate(readFileSync(AXE, 'utf8'));
  const { violations, passes } = await page.evaluate(() => globalThis.axe.run());
  const found = violations.map(({ id, impact, nodes }) => `${id} (${impact}): ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join('; ')}`);
  assert.deepEqual(found, [], what);
  assert.ok(passes.length > 10, `${what}: axe looked at little`);
}

export async function accessible({ system, admin }) {
  for (const colorScheme of ['light', 'dark']) {
    for (const width of [1440, 390]) {
      await inBrowser(
        async (context) => {
          const what = `${colorScheme}, ${width} pixels`;
          const page = await open(context, '', admin);
          await settled(page);
          await table(page, 'tokens-over-time');
          await check(page, `${what}, an organization`);
          await page.getByRole('button', { name: /^Model/ }).first().click();
          await page.locator('.options input').first().waitFor();
          await check(page, `${what}, a filter`);
          await page.keyboard.press('Escape');
          await page.getByRole('button', { name: /^Other range/ }).click();
          await check(page, `${what}, the calendar`);
          await page.close();
          const all = await open(context, '?compare=1', system);
          await settled(all);
          await check(all, `${what}, the system`);
          await all.getByRole('button', { name: 'Sign out' }).click();
          await check(all, `${what}, signing in`);
        },
        { colorScheme, viewport: { width, height: 900 } },
      );
    }
  }
}
