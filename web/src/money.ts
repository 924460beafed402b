/**
 * Money as the API writes it: decimal text, exact to ten decimals of a US dollar. It is added, compared and shown
 * as whole units of 1e-10 USD, and never becomes a float, except as the height of a bar.
 */

const DECIMALS = 10;
const ONE = 10n ** BigInt(DECIMALS);
const PATTERN = /^(-?)(\d+)(?:\.(\d{1,10}))?$/;

/** Units of 1e-10 USD. */
export function units(text: string): bigint {
  const match = PATTERN.exec(text);
  if (!match) throw new Error(`${text} is no amount of money`);
  const [, sign, whole = '0', fraction = ''] = match;
  const amount = BigInt(whole) * ONE + BigInt(fraction.padEnd(DECIMALS, '0'));
  return sign ? -amount : amount;
}

/** Decimal text without superfluous zeros. */
export function text(amount: bigint): string {
  const positive = amount < 0n ? -amount : amount;
  const fraction = (positive % ONE).toString().padStart(DECIMALS, '0').replace(/0+$/, '');
  return `${amount < 0n ? '-' : ''}${positive / ONE}${fraction && `.${fraction}`}`;
}

/** A part of a whole in permille, rounded down; 0 of nothing. Of counts as well. */
export function permille(part: bigint, whole: bigint): number {
  return whole > 0n ? Number((part * 1000n) / whole) : 0;
}

/** By how many tenths of a percent `now` is more than `before`, rounded half away from zero; null of nothing. */
export function change(now: bigint, before: bigint): number | null {
  if (before <= 0n) return null;
  const difference = (now - before) * 1000n;
  const half = before / 2n;
  return Number((difference + (difference < 0n ? -half : half)) / before);
}
