// What each role sees; where a click leads, and Back from there.

import assert from 'node:assert/strict';
import { inBrowser, open, settled } from './browser.mjs';

const panels = (page) => page.locator('[data-panel]').evaluateAll((all) => all.map((one) => one.dataset.panel).sort());
const totals = (page) => page.locator('[data-total] data').evaluateAll((all) => all.map((one) => one.value));

export async function roles({ organization, other, user, system, admin, member, own, ofUser }) {
  await inBrowser(async (context) => {
    const mine = await open(context, `?org=${other}&by=user_id&user_id=${other}`, member);
    await settled(mine);
    assert.deepEqual(await panels(mine), ['api-keys', 'errors-by-status', 'models', 'time-to-first-token', 'tokens-over-time']);
    assert.deepEqual(await totals(mine), own);
    assert.equal(await mine.getByRole('button', { name: 'User', exact: true }).count(), 0);
    await mine.close();

    const theirs = await open(context, `?org=${other}`, admin);
    await settled(theirs);
    assert.ok(theirs.url().includes(organization), 'an admin sees its own organization');
    assert.deepEqual(await panels(theirs), ['api-keys', 'errors-by-status', 'models', 'time-to-first-token', 'tokens-over-time', 'users']);
    assert.equal(await theirs.getByText('All organizations').count(), 0);
    await theirs.close();
  });
  await inBrowser(async (context) => {
    const page = await open(context, '', system);
    await settled(page);
    assert.deepEqual(await panels(page), ['errors-by-status', 'models', 'organizations', 'time-to-first-token', 'tokens-over-time']);
    const everything = await totals(page);
    const start = page.url();
    await page.locator(`tr[data-line="${organization}"] .link`).click();
    await page.locator('[data-panel="users"]').waitFor();
    await settled(page);
    const all = page.locator('[data-panel="users"]').getByRole('button', { name: /^Show all/ });
    if (await all.count()) await all.click();
    await page.locator(`tr[data-line="${user}"] .link`).click();
    await page.getByRole('button', { name: `Remove filter: User ${user}` }).waitFor();
    await settled(page);
    assert.deepEqual(await totals(page), ofUser, 'the figures of one user');
    const deep = page.url();

    // A reload, and the same link in another window, are the same view.
    await page.reload();
    await settled(page);
    assert.deepEqual([page.url(), await totals(page)], [deep, ofUser]);
    const shared = await context.newPage();
    await shared.goto(`${deep}#token=${system}`);
    await settled(shared);
    assert.deepEqual([shared.url(), await totals(shared)], [deep, ofUser]);
    await shared.close();

    await page.goBack();
    await page.goBack();
    assert.equal(page.url(), start);
    await settled(page);
    assert.deepEqual(await totals(page), everything);

    // The token is in the tab's storage alone, and gone after signing out.
    assert.deepEqual(await page.evaluate(() => [Object.keys(localStorage), Object.keys(sessionStorage), document.cookie]), [
      [],
      ['usage-analytics.token'],
      '',
    ]);
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByLabel('Access token').waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    await page.getByLabel('Access token').fill('nonsense');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByText('This is not a JSON Web Token.').waitFor();
    await page.getByLabel('Access token').fill(system);
    await page.getByRole('button', { name: 'Sign in' }).click();
    await settled(page);
    assert.deepEqual(await totals(page), everything);
  });
}
