// Every figure of the page is the generator's, in three time zones.

import assert from 'node:assert/strict';
import { inBrowser, lines, open, plain, settled, table } from './browser.mjs';

const MEASURES = ['total_tokens', 'cost', 'requests', 'errors'];

function compareLines(shown, expected, what) {
  assert.deepEqual(Object.keys(shown).sort(), Object.keys(expected).sort(), what);
  for (const [key, measures] of Object.entries(expected)) {
    for (const measure of MEASURES) {
      assert.equal(plain(shown[key][measure]), measures[measure], `${what}, ${measure} of ${key}`);
    }
  }
}

/** A chart's table, as amounts by group for each bucket; those of zero are left out. */
function byGroup({ head, rows }) {
  const groups = head.slice(0, -2);
  return rows.map((row) =>
    Object.fromEntries(groups.map((group, i) => [group, plain(row[i])]).filter(([, amount]) => amount !== '0')),
  );
}

export async function figures({ organization, token, zones }) {
  await inBrowser(async (context) => {
    for (const { zone, month, before, range, models, users, keys, tokens, costs, errors } of zones) {
      const page = await open(context, `?tz=${encodeURIComponent(zone)}`, token);
      await settled(page);
      assert.equal(page.url(), `${process.env.API_URL}/?org=${organization}&tz=${encodeURIComponent(zone).replaceAll('%20', '+')}`);
      for (const measure of MEASURES) {
        const card = page.locator(`[data-card="${measure}"]`);
        assert.equal(await card.locator('data').getAttribute('value'), month[measure], `${zone}, ${measure} of the month`);
        const was = card.locator('[data-before]');
        await was.waitFor();
        // They go on by a quarter of an hour at a time: one may have ended since.
        const possible = before.map((measures) => measures[measure]);
        assert.ok(possible.includes(await was.getAttribute('data-before')), `${zone}, ${measure} of the same days: ${possible}`);
        const total = page.locator(`[data-total="${measure}"] data`);
        assert.equal(await total.getAttribute('value'), range[measure], `${zone}, ${measure} of the range`);
        assert.equal(plain(await total.textContent()), range[measure]);
      }
      compareLines(await lines(page, 'models'), models, `${zone}, models`);
      compareLines(await lines(page, 'users'), users, `${zone}, users`);
      // Of more than a hundred keys all others are one line.
      const shownKeys = await lines(page, 'api-keys');
      for (const [key, measures] of Object.entries(shownKeys)) {
        if (key !== 'other') compareLines({ [key]: measures }, { [key]: keys[key] }, `${zone}, keys`);
      }
      assert.deepEqual(byGroup(await table(page, 'tokens-over-time')), tokens, `${zone}, tokens by day and model`);
      assert.deepEqual(byGroup(await table(page, 'errors-by-status')), errors, `${zone}, errors by day and status`);
      await page.getByRole('radio', { name: 'Cost' }).first().check({ force: true });
      const shownCosts = byGroup(await table(page, 'cost-over-time'));
      assert.deepEqual(shownCosts, costs, `${zone}, cost by day and model`);
      await page.close();
    }
  });
}
