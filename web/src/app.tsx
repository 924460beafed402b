import { useQueryClient } from '@tanstack/react-query';
import { useEffect } from 'react';
import { Bar } from './bar';
import { Controls } from './controls/controls';
import { Errors } from './panels/errors';
import { Latency } from './panels/latency';
import { Breakdown } from './panels/breakdown';
import { Month } from './panels/month';
import { Over } from './panels/over';
import { forget } from './questions';
import { signOut, useSession, type Session } from './session';
import { SignIn } from './sign-in';
import { Trouble } from './trouble';
import { show, useView, write, type View } from './view';

/** The page: whoever is not signed in signs in first. */
export function App() {
  const session = useSession();
  const cache = useQueryClient();
  useEffect(() => {
    // The next one who signs in may not see what this one was told.
    if (session) return;
    cache.clear();
    forget();
  }, [session, cache]);
  return session ? <Dashboard session={session} /> : <SignIn />;
}

function Dashboard({ session }: { session: Session }) {
  const view = allowed(useView(), session);
  useEffect(() => {
    // The URL says all of it from the start, so that it can be shared.
    if (write(view) !== location.search) show(view, true);
  });
  useEffect(() => {
    // Browsers take a longer wait than 24.8 days for none.
    const left = Math.min(session.expires - Date.now(), 2 ** 31 - 1);
    const timer = setTimeout(() => signOut('expired'), Math.max(0, left));
    return () => clearTimeout(timer);
  }, [session]);
  const ofUser = session.role === 'org_user';
  const [models, keys] = [{ ask: 'models', title: 'Models' } as const, { ask: 'keys', title: 'API keys' } as const];
  const first = view.org === null ? ({ ask: 'orgs', title: 'Organizations' } as const) : models;
  const second = view.org === null ? models : ofUser ? keys : ({ ask: 'users', title: 'Users' } as const);
  return (
    <>
      <Bar session={session} view={view} />
      <main>
        <Trouble view={view} session={session} />
        <Controls view={view} session={session} />
        <Month view={view} mine={ofUser} />
        <Over view={view} mine={ofUser} />
        <div className="columns">
          <div>
            <Breakdown {...first} view={view} key={first.ask} />
            {ofUser || view.org === null ? <Errors view={view} /> : <Breakdown ask="keys" title="API keys" view={view} />}
          </div>
          <div>
            <Breakdown {...second} view={view} key={second.ask} />
            {!ofUser && view.org !== null && <Errors view={view} />}
            <Latency view={view} />
          </div>
        </div>
      </main>
      <footer>
        <a href="/api/v1/openapi.yaml">API contract</a>
        <span>Times are those of {view.zone}. Costs are exact, in US dollars.</span>
      </footer>
    </>
  );
}

/** A view within what the role may see: what it may not is absent, not broken. */
function allowed(view: View, session: Session): View {
  if (session.role === 'system_admin') {
    if (view.org !== null) return view.split === 'org_id' ? { ...view, split: 'model' } : view;
    // The whole system has no exact answer by user or key but for whole UTC days.
    const split = view.split === 'user_id' || view.split === 'api_key_id' ? 'model' : view.split;
    return { ...view, split, filters: { ...view.filters, user_id: [], api_key_id: [] } };
  }
  const isUser = session.role === 'org_user';
  const split = view.split === 'org_id' || (isUser && view.split === 'user_id') ? 'model' : view.split;
  return {
    ...view,
    org: session.org,
    split,
    filters: isUser ? { ...view.filters, user_id: [] } : view.filters,
  };
}
