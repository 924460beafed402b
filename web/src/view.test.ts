import { expect, test } from 'vitest';
import { parse, rangeOf, widthOf, write } from './view';

test('a view is the same after it was written and read', () => {
  for (const query of [
    '?tz=UTC',
    '?range=this_month&tz=Asia%2FKolkata&measure=cost&by=status&compare=1',
    '?org=3f2504e0-4f89-41d3-9a0c-0305e82c3301&from=2026-11-01T00%3A00%3A00Z&to=2026-11-02T00%3A00%3A00Z&tz=UTC&width=1h',
    '?range=2026-09&tz=UTC&model=a%2Fb&model=%3Dcmd%7C&user_id=u&status=error',
  ]) {
    expect(write(parse(query, 'Europe/Berlin'))).toBe(query);
  }
});

test('nonsense is as if it were not there', () => {
  const view = parse('?range=ever&tz=Mars%2FBase&width=2d&measure=x&by=y&from=2026-11-02T00:00:00Z&to=2026-11-01T00:00:00Z', 'UTC');
  expect(write(view)).toBe('?tz=UTC');
});

test('a month is asked for by its instants, a period by its name', () => {
  expect(rangeOf(parse('?range=2026-09&tz=Asia/Kolkata', 'UTC'))).toEqual({
    start_time: '2026-08-31T18:30:00Z',
    end_time: '2026-09-30T18:30:00Z',
  });
  expect(rangeOf(parse('?range=last_7d', 'UTC'))).toEqual({ period: 'last_7d' });
});

test('a width that the range does not allow gives way', () => {
  const now = new Date('2026-11-28T06:40:00Z');
  expect(widthOf(parse('?org=o&width=1m', 'UTC'), now)).toBe('1d');
  expect(widthOf(parse('?org=o&range=last_24h&width=1m', 'UTC'), now)).toBe('1m');
  expect(widthOf(parse('?range=last_24h&width=1m', 'UTC'), now)).toBe('15m');
});
