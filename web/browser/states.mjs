// Each state of the page, provoked for real.

import assert from 'node:assert/strict';
import { ask, inBrowser, open, settled } from './browser.mjs';

const trouble = (page, status) => page.locator(`.trouble[data-status="${status}"]`);

export async function states({ admin, system, forged, user, empty, month, limited }) {
  await inBrowser(async (context) => {
    // Nothing yet, and nothing of that kind.
    const nothing = await open(context, `?org=${empty}`, system);
    await nothing.getByText('Nothing was used in this range.').first().waitFor();
    await nothing.goto(`${process.env.API_URL}/?model=no-such-model`);
    await nothing.getByText('Nothing matches these filters in this range.').first().waitFor();
    await nothing.close();

    // A question without an exact answer: the nearest one that has one is a click away.
    const inexact = await open(context, `?tz=Asia/Kolkata&range=${month}&user_id=${user}`, admin);
    await trouble(inexact, 400).waitFor();
    const before = inexact.url();
    await inexact.getByRole('button', { name: 'Show the nearest question that has an answer' }).click();
    await trouble(inexact, 400).waitFor({ state: 'detached' });
    await settled(inexact);
    assert.notEqual(inexact.url(), before);
    await inexact.close();

    // The database goes away and comes back; the numbers stay meanwhile.
    const page = await open(context, '', admin);
    await settled(page);
    const figure = await page.locator('[data-total="total_tokens"] data').textContent();
    await ask('database away');
    await trouble(page, 503).waitFor();
    await page.getByText('Not updating').waitFor();
    await trouble(page, 503).getByText(/Next try in \d+ second/).waitFor();
    assert.equal(await page.locator('[data-total="total_tokens"] data').textContent(), figure);
    await ask('database back');
    await trouble(page, 503).waitFor({ state: 'detached' });
    await page.getByText('Not updating').waitFor({ state: 'detached' });
    await page.close();

    // Tokens: one that ends, and one that another key signed.
    const ending = await open(context, '?range=last_7d', await ask('token of seconds'));
    await ending.getByText('Your token has expired.').waitFor();
    assert.ok(ending.url().includes('range=last_7d'), 'the view stays');
    assert.equal(await ending.evaluate(() => sessionStorage.length), 0);
    await ending.close();
    const refused = await open(context, '', forged);
    await refused.getByText('The service refused this token.').waitFor();
    await refused.close();
  });
  // One question a second: all of them are answered in the end.
  process.env.API_URL = limited;
  await inBrowser(async (context) => {
    const page = await open(context, '', admin);
    await trouble(page, 429).waitFor();
    await trouble(page, 429).getByText(/Next try in \d+ second/).waitFor();
    await settled(page);
  });
}
