import { useHealth } from './answers';
import { Id } from './id';
import { Logo } from './logo';
import { useNow } from './now';
import { lasting, time } from './numbers';
import { signOut, type Role, type Session } from './session';
import { nextTheme, useChoice } from './theme';
import { show, type View } from './view';

const ROLES: Record<Role, string> = { system_admin: 'System admin', org_admin: 'Org admin', org_user: 'Org user' };
const SOON_MS = 10 * 60_000;

/** The bar on top: where we are, how fresh that is, and who asks. */
export function Bar({ session, view }: { session: Session; view: View }) {
  const isSystem = session.role === 'system_admin';
  const toSystem = () =>
    show({ ...view, org: null, filters: { ...view.filters, user_id: [], api_key_id: [] } });
  return (
    <header className="bar">
      <Logo />
      <h1 className="title">
        <span>LLM usage</span>
      </h1>
      <nav aria-label="Scope" className="crumbs">
        {isSystem &&
          (view.org === null ? (
            <strong>All organizations</strong>
          ) : (
            <button type="button" className="link" onClick={toSystem}>
              All organizations
            </button>
          ))}
        {view.org !== null && (
          <>
            {isSystem && <span aria-hidden="true">/</span>}
            <span className="muted">{session.role === 'org_user' ? 'Your usage in' : 'Organization'}</span>
            <Id value={view.org} />
          </>
        )}
      </nav>
      <Freshness zone={view.zone} />
      <Expiry session={session} />
      <Theme />
      <span className="role" title={session.subject}>
        {ROLES[session.role]}
      </span>
      <button type="button" className="quiet" onClick={() => signOut('left')}>
        Sign out
      </button>
    </header>
  );
}

const STATES = { live: 'Live', delayed: 'Delayed', no_data: 'No data' } as const;

/** How old the oldest number on the page is. */
function Freshness({ zone }: { zone: string }) {
  const { freshness, failure } = useHealth();
  const now = useNow(1000);
  if (!freshness) return <span className="badge" data-state="unknown">{failure ? 'No numbers' : 'Loading'}</span>;
  const through = freshness.counted_through ? new Date(freshness.counted_through) : null;
  const age = through && Math.max(0, (now.getTime() - through.getTime()) / 1000);
  const isStale = failure !== null && failure.status !== 400;
  return (
    <span
      className="badge"
      data-state={isStale ? 'delayed' : freshness.state}
      title={through ? `Everything published before ${time(through, zone)} is counted.` : undefined}
    >
      <span className="dot" aria-hidden="true" />
      {isStale ? 'Not updating' : STATES[freshness.state]}
      {through && <span className="age">as of {age! < 60 ? `${Math.round(age!)} s ago` : `${lasting(age!)} ago`}</span>}
    </span>
  );
}

function Expiry({ session }: { session: Session }) {
  const left = session.expires - useNow(1000).getTime();
  if (left > SOON_MS) return null;
  return (
    <span className="badge" data-state="delayed" role="status">
      Token expires in {lasting(left / 1000)}
    </span>
  );
}

const THEMES = { system: '◐', light: '☀', dark: '☾' } as const;

function Theme() {
  const choice = useChoice();
  return (
    <button type="button" className="quiet icon" onClick={nextTheme} title={`Theme: ${choice}`} aria-label={`Theme: ${choice}`}>
      <span aria-hidden="true">{THEMES[choice]}</span>
    </button>
  );
}
