// Names that would like to be something else are text, and bend nothing.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { inBrowser, lines, open, settled, table } from './browser.mjs';

export async function hostile({ token, names }) {
  for (const width of [1440, 360]) {
    await inBrowser(
      async (context) => {
        const page = await open(context, '?measure=requests', token);
        await settled(page);
        assert.deepEqual(Object.keys(await lines(page, 'models')).sort(), [...names].sort());
        const shown = await table(page, 'requests-over-time');
        for (const name of names) assert.ok(shown.head.includes(name) || shown.head.includes('all others'), name);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(wide <= 0, `at ${width} pixels the page is ${wide} pixels too wide`);
        for (const name of names) {
          const row = page.locator('[data-panel="models"] tr[data-line] .link', { hasText: name });
          await row.first().click();
          await page.getByRole('button', { name: `Remove filter: Model ${name}` }).waitFor();
          await settled(page);
          assert.equal(await page.locator('[data-total="requests"] data').getAttribute('value'), '1', name);
          await page.goBack();
          await settled(page);
        }
        const [download] = await Promise.all([
          page.waitForEvent('download'),
          page.getByRole('button', { name: 'Models as CSV' }).click(),
        ]);
        const csv = readFileSync(await download.path(), 'utf8');
        assert.ok(names.some((name) => name.startsWith('=')) && !/^"?=/m.test(csv), csv);
        assert.equal(await page.evaluate(() => document.querySelectorAll('#root img, #root script, #root iframe').length), 0);
      },
      { viewport: { width, height: 800 }, acceptDownloads: true },
    );
  }
}
