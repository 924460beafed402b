import { expect, test } from 'vitest';
import { change, permille, text, units } from './money';

test('text and units are the same amount, to the last of ten decimals', () => {
  for (const amount of ['0', '0.0000000001', '12.34', '90071992547409931.0000000001', '-0.5', '1000000']) {
    expect(text(units(amount))).toBe(amount);
  }
  expect(units('0.1') + units('0.2')).toBe(units('0.3'));
  expect(units('90071992547409.93') + 1n).toBe(units('90071992547409.9300000001'));
  for (const wrong of ['', '1e3', '.5', '1.', '1.00000000001', 'NaN', ' 1']) {
    expect(() => units(wrong), wrong).toThrow();
  }
});

test('shares are parts of a whole', () => {
  expect(permille(1n, 3n)).toBe(333);
  expect(permille(3n, 3n)).toBe(1000);
  expect(permille(0n, 0n)).toBe(0);
});

test('changes are in tenths of a percent', () => {
  expect(change(units('1.5'), units('1'))).toBe(500);
  expect(change(1n, 3n)).toBe(-667);
  expect(change(2n, 3n)).toBe(-333);
  expect(change(3n, 3n)).toBe(0);
  expect(change(3n, 0n)).toBeNull();
});
